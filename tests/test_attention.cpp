// Attention in one pass on GPUs of all sizes: how its tiles follow the shared memory that a block may have,
// and which tokens it takes.

#include "kernels/attention.h"

#include "backend/cuda/block_memory.h"
#include "devices.h"
#include "kernel_checks.h"
#include "sgm/autograd/ops.h"

namespace sgm {
namespace {

constexpr std::size_t kKilobyte = 1024;

class AttentionTiles : public CudaTest {
 protected:
  CudaContext& device() { return cuda(context()); }

  /// y, log-sum-exp, dqkv and its sums with at most so much shared memory.
  std::vector<std::vector<double>> results(std::size_t shared, std::int64_t n, std::int64_t t,
                                           std::int64_t c) {
    device().part<BlockMemory>().bytes = shared;
    const double scale = 1.0 / std::sqrt(static_cast<double>(c));
    const Guarded qkv(device(), normals(3 * n * t * c, 1, DType::bf16), DType::bf16),
        dy(device(), normals(n * t * c, 2, DType::bf16), DType::bf16),
        y(device(), std::vector<double>(static_cast<std::size_t>(n * t * c)), DType::bf16, true),
        lse(device(), std::vector<double>(static_cast<std::size_t>(n * t)), DType::f32, true),
        dqkv(device(), 3 * n * t * c, DType::bf16), sums(device(), 3 * c, DType::f32);
    run(Attention{qkv.buffer(), y.buffer(), lse.buffer(), n, t, c, scale}, device());
    run(AttentionGrad{qkv.buffer(), y.buffer(), lse.buffer(), dy.buffer(), dqkv.buffer(), sums.buffer(), n, t,
                      c, scale},
        device());
    return {y.values(), lse.values(), dqkv.values(), sums.values()};
  }
};

TEST_F(AttentionTiles, GiveTheSameResultsInTheMemoryOfEveryGpu) {
  // Two stages of large tiles, one, and small tiles: compute capabilities 9.0, 8.0 and 8.6.
  const auto most = results(227 * kKilobyte, 2, 130, 256);
  for (const std::size_t shared : {163 * kKilobyte, 99 * kKilobyte}) {
    const auto fewer = results(shared, 2, 130, 256);
    for (std::size_t i = 0; i < most.size(); ++i)
      expect_close(fewer[i], most[i], {unit_roundoff(DType::bf16)}, "result " + std::to_string(i));
  }
  // How many stages there are changes nothing.
  EXPECT_EQ(results(227 * kKilobyte, 1, 130, 64), results(100 * kKilobyte, 1, 130, 64));
}

TEST_F(AttentionTiles, FitTheSmallestGpu) {
  for (const std::int64_t t : {1, 33, 64})
    for (const std::int64_t c : {16, 240, 256}) {
      SCOPED_TRACE(testing::Message() << t << " tokens of " << c << " channels");
      device().take_launch_counts();
      results(99 * kKilobyte, 1, t, c);
      EXPECT_EQ(device().take_launch_counts().size(), 2u);
    }
}

TEST_F(AttentionTiles, AreLeftAloneByWhatTheyDoNotFit) {
  const auto names = [&](DType dtype, std::int64_t c) {
    const Tensor qkv = tensor_of(device(), normals(4 * 3 * c, 1, dtype), {1, 2, 2, 3 * c}, dtype);
    device().take_launch_counts();
    attention(Var(qkv));
    std::vector<std::string> kernels;
    for (const LaunchCount& kernel : device().take_launch_counts()) kernels.push_back(kernel.kernel);
    return kernels;
  };
  EXPECT_EQ(names(DType::bf16, 32), std::vector<std::string>{"attention"});
  for (const auto& [dtype, c] : {std::pair{DType::f32, 32}, {DType::bf16, 24}, {DType::bf16, 272}})
    EXPECT_EQ(names(dtype, c).size(), 2u) << dtype << ", " << c;
  Attention op{};
  op.qkv.dtype = DType::f32, op.c = 32;
  EXPECT_THROW(op.cuda(device()), Error);
}

}  // namespace
}  // namespace sgm
