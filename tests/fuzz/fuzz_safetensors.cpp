// The safetensors reader: header, byte ranges, data.

#include <cstring>

#include "fuzz/fuzz.h"
#include "sgm/io/safetensors.h"

namespace {

std::string file_of(const std::string& header, std::size_t data_bytes) {
  const std::uint64_t length = header.size();
  std::string file(sizeof length, '\0');
  std::memcpy(file.data(), &length, sizeof length);
  return file + header + std::string(data_bytes, '\x3f');
}

}  // namespace

std::vector<std::string> fuzz_seeds() {
  return {file_of(R"({"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})", 24),
          file_of(R"({"__metadata__":{"step":"7","config":"[sde]\n"},)"
                  R"("a.b":{"dtype":"F64","shape":[],"data_offsets":[0,8]},)"
                  R"("c":{"dtype":"BF16","shape":[1,1,3,1],"data_offsets":[8,14]},)"
                  R"("empty":{"dtype":"I64","shape":[0,4],"data_offsets":[14,14]},)"
                  R"("mask":{"dtype":"BOOL","shape":[2],"data_offsets":[14,16]}}   )",
                  16),
          file_of("{}", 0)};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sgm;
  return expect_success_or_error(data, size, [](std::span<const std::byte> bytes) {
    for (const auto& [name, array] : parse_safetensors(bytes, "fuzz").tensors) {
      const std::size_t needed = static_cast<std::size_t>(array.shape.numel()) * size_of(array.dtype);
      if (array.bytes.size() != needed) std::abort();
    }
  });
}
