// IDX images and labels, raw and packed, and CIFAR-10 records. An input is two files: "images", the byte 0xfe
// four times, "labels".

#include <string_view>

#include "data/source.h"
#include "data_samples.h"
#include "fuzz/fuzz.h"
#include "sgm/io/archive.h"

namespace {

constexpr std::string_view kBetween = "\xfe\xfe\xfe\xfe";

sgm::ByteStore store_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  sgm::Bytes content(bytes.begin(), bytes.end());
  if (sgm::is_gzip(content)) content = sgm::gunzip(content, 1 << 24, "fuzz");
  return {std::move(content), "fuzz"};
}

void read_all(const sgm::Source& source) {
  if (source.size() < 1) std::abort();
  for (std::int64_t i = 0; i < source.size() && i < 100; ++i) source.image(i);
}

}  // namespace

std::vector<std::string> fuzz_seeds() {
  using namespace sgm::samples;
  const std::string images = idx({3, 5, 7}, counting_bytes(105)), labels = idx({3}, std::string("\1\0\2", 3));
  return {images + std::string(kBetween) + labels, gzip(images) + std::string(kBetween) + gzip(labels),
          idx({2, 2, 2, 3}, counting_bytes(24)), cifar10(2)};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sgm;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::size_t cut = text.find(kBetween);
  expect_success_or_error(data, size, [&](std::span<const std::byte>) {
    std::vector<ByteStore> files;
    files.push_back(store_of(text));
    read_all(*cifar10_source(std::move(files)));
  });
  return expect_success_or_error(data, size, [&](std::span<const std::byte>) {
    std::optional<ByteStore> labels;
    if (cut != std::string_view::npos) labels.emplace(store_of(text.substr(cut + kBetween.size())));
    read_all(*idx_source(store_of(text.substr(0, cut)), std::move(labels)));
  });
}
