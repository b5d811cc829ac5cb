// Tensors and the memory they live in.

#include "sgm/tensor/tensor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include "expect_error.h"

namespace sgm {
namespace {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

class TensorTest : public testing::Test {
 protected:
  Tensor from(const Doubles& values, DType dtype = DType::f64) {
    return Tensor::from_host(*context_, std::span<const double>(values), {std::ssize(values)}, dtype);
  }
  std::unique_ptr<Context> context_ = create_context("cpu", 2);
};

TEST_F(TensorTest, BringsValuesBackFromTheDevice) {
  const Floats floats = {1.0f, -2.5f, 0.1f, 3e38f, 1e-40f, 0.0f};
  const Tensor t = Tensor::from_host(*context_, std::span<const float>(floats), {2, 3});
  EXPECT_EQ(t.dtype(), DType::f32);
  EXPECT_EQ(t.shape(), Shape({2, 3}));
  EXPECT_EQ(t.bytes(), 24u);
  EXPECT_EQ(t.to_host(), floats);
  EXPECT_EQ(t.to_host_f64(), Doubles(floats.begin(), floats.end()));
  const Doubles doubles = {0.1, 1e300, -1e-300};
  EXPECT_EQ(from(doubles).to_host_f64(), doubles);
}

TEST_F(TensorTest, RoundsToNearestEvenWhereTheTypeIsNarrower) {
  EXPECT_EQ(from({0.1}, DType::f32).to_host_f64(), (Doubles{static_cast<double>(0.1f)}));
  // Neighbours of 1 in bf16 are 2^-7 apart; ties go to the even one.
  const Tensor t = from({1.0, 1.0 + 0x1p-8, 1.0 + 3 * 0x1p-8, 1.0 + 0x1p-8 + 0x1p-20, -0.0}, DType::bf16);
  EXPECT_EQ(t.to_host_f64(), (Doubles{1.0, 1.0, 1.0 + 4 * 0x1p-8, 1.0 + 0x1p-7, -0.0}));
  EXPECT_TRUE(std::signbit(t.to_host_f64()[4]));
  EXPECT_EQ(t.bytes(), 10u);
}

TEST_F(TensorTest, CarriesNanAndInfinityThroughEveryType) {
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    const Doubles v = from({nan, inf, -inf}, dtype).to_host_f64();
    EXPECT_TRUE(std::isnan(v[0]) && v[1] == inf && v[2] == -inf) << dtype;
  }
}

TEST_F(TensorTest, FillsAnyType) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    EXPECT_EQ(Tensor::full(*context_, {3, 5}, -1.5, dtype).to_host(), Floats(15, -1.5f));
    Tensor t = Tensor::zeros(*context_, {100'000}, dtype);
    EXPECT_EQ(t.to_host(), Floats(100'000, 0.0f));
    t.fill(0.25);
    EXPECT_EQ(t.to_host(), Floats(100'000, 0.25f));
  }
}

TEST_F(TensorTest, SharesStorageAmongHandlesAndCopiesOnlyOnClone) {
  Tensor a = from({1.0, 2.0});
  EXPECT_TRUE(a.is_unique());
  const Tensor b = a, c = a.clone(), same = a.to(DType::f64);
  EXPECT_FALSE(a.is_unique());
  EXPECT_TRUE(c.is_unique());
  a.fill(7.0);
  EXPECT_EQ(b.to_host_f64(), (Doubles{7.0, 7.0}));
  EXPECT_EQ(same.to_host_f64(), (Doubles{7.0, 7.0}));
  EXPECT_EQ(c.to_host_f64(), (Doubles{1.0, 2.0}));
  const Tensor narrower = a.to(DType::f32);
  a.fill(8.0);
  EXPECT_EQ(narrower.to_host(), (Floats{7.0f, 7.0f}));
}

TEST_F(TensorTest, ReshapesWithoutCopying) {
  Tensor a = from({1.0, 2.0, 3.0, 4.0, 5.0, 6.0});
  const Tensor b = a.reshape({2, 1, 3});
  EXPECT_EQ(b.shape(), Shape({2, 1, 3}));
  EXPECT_EQ(b.shape()[-1], 3);
  a.fill(0.0);
  EXPECT_EQ(b.to_host_f64(), Doubles(6, 0.0));
  expect_error({"reshape", "[6]", "[4]"}, [&] { a.reshape({4}); });
}

TEST_F(TensorTest, CopiesFromAnotherType) {
  Tensor a = Tensor::zeros(*context_, {2}, DType::bf16);
  a.copy_from(from({1.0, 2.0 + 0x1p-20}));
  EXPECT_EQ(a.to_host(), (Floats{1.0f, 2.0f}));
  expect_error({"copy_from", "[3]", "[2]"}, [&] { a.copy_from(from({1.0, 2.0, 3.0})); });
}

TEST_F(TensorTest, ChangesItsVersionWithItsValuesAndSharesItWithNobody) {
  std::set<std::uint64_t> seen = {0};
  for (int i = 0; i < 5; ++i) {
    Tensor t = from({1.0, 2.0});  // all at one address
    EXPECT_TRUE(seen.insert(t.version()).second);
    t.fill(3.0);
    EXPECT_TRUE(seen.insert(t.version()).second);
    t.copy_from(from({4.0, 5.0}));
    EXPECT_TRUE(seen.insert(t.version()).second);
    t.mark_modified();
    EXPECT_TRUE(seen.insert(t.version()).second);
    const Tensor copy = t;
    EXPECT_EQ(copy.version(), t.version());
  }
  EXPECT_EQ(Tensor().version(), 0u);
}

TEST_F(TensorTest, HandsOutItsElementsInItsOwnTypeOnly) {
  Tensor t = from({1.0, 2.0});
  t.data<double>()[1] = 5.0;
  EXPECT_EQ(t.to_host_f64(), (Doubles{1.0, 5.0}));
  expect_error({"f32", "f64"}, [&] { t.data<float>(); });
  EXPECT_EQ(from({0.5}).item(), 0.5);
  EXPECT_EQ(Tensor::full(*context_, {}, 2.5, DType::bf16).item(), 2.5);
  expect_error({"item", "[2]"}, [&] { t.item(); });
}

TEST_F(TensorTest, CanBeEmpty) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    Tensor t = Tensor::empty(*context_, {0, 3}, dtype);
    EXPECT_TRUE(t.defined());
    EXPECT_EQ(t.numel(), 0);
    t.fill(1.0);
    t.copy_from(t.clone());
    EXPECT_TRUE(t.to_host().empty() && t.to(DType::f64).to_host_f64().empty());
    EXPECT_EQ(t.reshape({3, 0}).shape(), Shape({3, 0}));
  }
  EXPECT_TRUE(Tensor::from_host(*context_, std::span<const float>(), {0}).to_host().empty());
}

TEST_F(TensorTest, IsAbsentByDefault) {
  Tensor t;
  EXPECT_FALSE(t.defined());
  EXPECT_FALSE(t.buffer());
  EXPECT_FALSE(t.const_buffer());
  expect_error({"absent"}, [&] { t.to_host(); });
  expect_error({"absent"}, [&] { t.clone(); });
  expect_error({"absent"}, [&] { t.fill(1.0); });
  expect_error({"absent"}, [&] { t.item(); });
  expect_error({"absent"}, [&] { t.context(); });
  expect_error({"absent"}, [&] { t.data<float>(); });
  expect_error({"absent"}, [&] { t.copy_from(Tensor()); });
}

TEST_F(TensorTest, RefusesTypesCountsAndShapesThatCannotBe) {
  for (const DType dtype : {DType::f16, DType::i64, DType::i32, DType::u8})
    expect_error({"f32, bf16 or f64", std::string(name_of(dtype))},
                 [&] { Tensor::empty(*context_, {2}, dtype); });
  expect_error({"3 values", "[2, 2]"}, [&] {
    const Floats three(3);
    Tensor::from_host(*context_, std::span<const float>(three), {2, 2});
  });
  constexpr std::int64_t kHuge = std::int64_t{1} << 40;
  for (const Shape& shape : {Shape{-1},
                             {2, -3},
                             {-2, -3},
                             {kHuge, kHuge},
                             {kHuge, kHuge, kHuge, kHuge},
                             {std::numeric_limits<std::int64_t>::max()}})
    expect_error({"impossible shape"}, [&] { Tensor::empty(*context_, shape); });
  const std::vector<std::int64_t> five(5, 1);
  expect_error({"rank 5"}, [&] { Tensor::empty(*context_, Shape(std::span<const std::int64_t>(five))); });
  EXPECT_EQ(context_->memory().in_use, 0u);
}

TEST_F(TensorTest, LeavesNoMemoryBehind) {
  {
    const Tensor a = Tensor::zeros(*context_, {1000, 7}), b = a.to(DType::f64), c = b.clone();
    EXPECT_GE(context_->memory().in_use, a.bytes() + b.bytes() + c.bytes());
  }
  const MemoryStats after = context_->memory();
  EXPECT_EQ(after.in_use, 0u);
  EXPECT_GE(after.peak, 7000u * (4 + 8 + 8));
  EXPECT_GE(after.reserved, after.peak);
  context_->reset_peak();
  EXPECT_EQ(context_->memory().peak, 0u);
}

TEST_F(TensorTest, ReusesMemoryInsteadOfAskingTheSystemAgain) {
  for (int i = 0; i < 3; ++i) Tensor::zeros(*context_, {1 << 16});
  const std::size_t reserved = context_->memory().reserved;
  for (int i = 0; i < 50; ++i) Tensor::zeros(*context_, {1 << 16});
  EXPECT_EQ(context_->memory().reserved, reserved);
}

TEST_F(TensorTest, IsAlignedToCacheLines) {
  std::vector<Tensor> all;
  for (const std::int64_t n : {0, 1, 3, 17, 1000, 4097, 1 << 20, (1 << 20) + 1}) {
    all.push_back(Tensor::empty(*context_, {n}));
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(all.back().data<float>()) % 64, 0u) << n;
  }
}

TEST(CreateContext, NamesADeviceThatThisBuildLacks) {
  expect_error({"'tpu'"}, [] { create_context("tpu"); });
  EXPECT_NE(create_context("cpu", 1)->describe().find("1 thread"), std::string::npos);
}

}  // namespace
}  // namespace sgm
