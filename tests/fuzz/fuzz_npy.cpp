// .npy arrays, .npz archives, and sets of images in them.

#include "data/source.h"
#include "data_samples.h"
#include "fuzz/fuzz.h"
#include "sgm/io/npy.h"

namespace {

sgm::Bytes as_vector(std::span<const std::byte> file) { return {file.begin(), file.end()}; }

void read_all(const sgm::Source& source) {
  for (std::int64_t i = 0; i < source.size() && i < 100; ++i) source.image(i);
}

}  // namespace

std::vector<std::string> fuzz_seeds() {
  using namespace sgm::samples;
  const std::string images =
      npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2, 3), }\n", counting_bytes(12));
  const std::string floats =
      npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, 2, 3), }\n", std::string(48, '\0'), '\2');
  const std::string labels =
      npy("{'descr': '<i8', 'fortran_order': False, 'shape': (2,)}", std::string(16, '\0'), '\3');
  return {images, floats, labels, zip({{"x.npy", images}, {"y.npy", labels}}),
          zip({{"images.npy", floats}, {"arr_0.npy", images}}, false)};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sgm;
  expect_success_or_error(data, size, [](std::span<const std::byte> file) {
    const Array array = parse_npy(file, "fuzz");
    if (array.bytes.size() != static_cast<std::size_t>(array.shape.numel()) * size_of(array.dtype))
      std::abort();
  });
  expect_success_or_error(data, size, [](std::span<const std::byte> file) {
    read_all(*npy_source(ByteStore(as_vector(file), "fuzz")));
  });
  return expect_success_or_error(
      data, size, [](std::span<const std::byte> file) { read_all(*npz_source(as_vector(file), "fuzz")); });
}
