// Zip archives, sets of images in them, and dataset.json.

#include "data/source.h"
#include "data_samples.h"
#include "fuzz/fuzz.h"
#include "sgm/io/archive.h"

std::vector<std::string> fuzz_seeds() {
  using namespace sgm::samples;
  const std::string picture = png(image(2, 3, 3));
  const std::string json = R"({"labels": [["a/1.png", 1], ["b.png", 0]], "classes": ["p", "q"]})";
  const Entries files{{"a/1.png", picture}, {"b.png", png(image(2, 3, 1))}, {"dataset.json", json}};
  return {zip(files), zip(files, false), zip({{"empty", ""}}), zip({}), json, R"({"labels": null})"};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sgm;
  const auto as_vector = [](std::span<const std::byte> file) { return Bytes(file.begin(), file.end()); };
  expect_success_or_error(data, size, [&](std::span<const std::byte> file) {
    const std::string text(reinterpret_cast<const char*>(file.data()), file.size());
    labels_from_json(text, {"a/1.png", "b.png"}, "fuzz");
  });
  expect_success_or_error(data, size, [&](std::span<const std::byte> file) {
    const ZipReader zip(as_vector(file), "fuzz");
    for (const std::string& name : zip.names()) zip.read(name, std::uint64_t{1} << 30);
  });
  return expect_success_or_error(data, size, [&](std::span<const std::byte> file) {
    const auto source = zip_source(as_vector(file), "fuzz");
    for (std::int64_t i = 0; i < source->size(); ++i) source->image(i);
  });
}
