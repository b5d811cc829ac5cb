#include "data_formats.h"

#include "data_samples.h"
#include "sgm/io/array.h"

namespace sgm {
namespace {

using samples::image;

std::string pixels_of(const std::vector<Image>& images) {
  std::string text;
  for (const Image& image : images) text.append(image.pixels.begin(), image.pixels.end());
  return text;
}

/// Three images of odd size and one channel count, which every format below holds.
constexpr int kHeight = 5, kWidth = 7;
std::vector<Image> three(int channels) {
  return {image(kHeight, kWidth, channels, 1), image(kHeight, kWidth, channels, 2),
          image(kHeight, kWidth, channels, 3)};
}

/// [3, 5, 7, channels] with elements of T made from bytes by `convert`.
template <class T, class Convert>
Array array_of_three(int channels, Convert convert) {
  std::vector<T> values;
  for (const char byte : pixels_of(three(channels)))
    values.push_back(convert(static_cast<std::uint8_t>(byte)));
  return make_array<T>({3, kHeight, kWidth, channels}, std::span<const T>(values));
}
std::uint8_t same(std::uint8_t byte) { return byte; }

std::vector<Image> cifar_images(int count) {
  Image image{32, 32, 3, std::vector<std::uint8_t>(3072)};
  for (std::size_t p = 0; p < 1024; ++p)
    for (std::size_t c = 0; c < 3; ++c)
      image.pixels[3 * p + c] = static_cast<std::uint8_t>((1024 * c + p) % 251);
  return std::vector<Image>(static_cast<std::size_t>(count), image);
}

}  // namespace

std::vector<DataFormat> data_formats() {
  const std::string idx_images = samples::idx({3, kHeight, kWidth}, pixels_of(three(1)));
  const std::string idx_labels = samples::idx({3}, std::string("\4\0\2", 3));
  const std::string json =
      R"({"labels": [["b/2.png", 0], ["a/1.png", 3], ["c.png", 1]], "classes": ["p", "q", "r", "s", "t"]})";
  const samples::Entries files{{"a/1.png", samples::png(three(3)[0])},
                               {"b/2.png", samples::png(three(3)[1])},
                               {"c.png", samples::png(three(3)[2])}};
  samples::Entries labelled = files;
  labelled.push_back({"dataset.json", json});
  const samples::Entries in_folders{{"cat/1.png", files[0].second},
                                    {"cat/x/2.png", files[1].second},
                                    {"dog/1.PNG", files[2].second},
                                    {"readme.txt", "no image"}};
  const std::vector<std::int32_t> numbers{2, 0, 1};
  const std::string y = samples::npy(make_array<std::int32_t>({3}, std::span<const std::int32_t>(numbers)));
  const std::string bytes1 = samples::npy(array_of_three<std::uint8_t>(1, same)),
                    bytes3 = samples::npy(array_of_three<std::uint8_t>(3, same));
  const std::string floats =
      samples::npy(array_of_three<float>(3, [](std::uint8_t b) { return static_cast<float>(b) / 255.0f; }));
  const std::string doubles =
      samples::npy(array_of_three<double>(1, [](std::uint8_t b) { return b / 255.0; }));
  const auto one = [](const std::string& path, const std::string& content) {
    return [=](const TempFolder& folder) { folder.write(path, content); };
  };
  const auto many = [](const samples::Entries& entries) {
    return [=](const TempFolder& folder) {
      for (const auto& [path, content] : entries) folder.write(path, content);
    };
  };
  const std::vector<int> none{-1, -1, -1};
  return {
      {"idx",
       many({{"t-images-idx3-ubyte", idx_images}, {"t-labels-idx1-ubyte", idx_labels}}),
       "t-images-idx3-ubyte",
       three(1),
       {4, 0, 2},
       5},
      {"idx_dots",
       many({{"t-images.idx3-ubyte", idx_images}, {"t-labels.idx1-ubyte.gz", samples::gzip(idx_labels)}}),
       "t-images.idx3-ubyte",
       three(1),
       {4, 0, 2},
       5},
      {"idx_gz", one("images-idx3-ubyte.gz", samples::gzip(idx_images)), "images-idx3-ubyte.gz", three(1),
       none, 0},
      {"idx_colour", one("digits.idx", samples::idx({3, kHeight, kWidth, 3}, pixels_of(three(3)))),
       "digits.idx", three(3), none, 0},
      {"idx_folder",
       many({{"train-images-idx3-ubyte", idx_images},
             {"train-labels-idx1-ubyte", idx_labels},
             {"t10k-images-idx3-ubyte", samples::idx({1, 1, 1}, "x")}}),
       "",
       three(1),
       {4, 0, 2},
       5},
      {"cifar10_file",
       one("test_batch.bin", samples::cifar10(3)),
       "test_batch.bin",
       cifar_images(3),
       {0, 1, 2},
       10},
      {"cifar10_folder",
       many({{"data_batch_1.bin", samples::cifar10(2)},
             {"data_batch_2.bin", samples::cifar10(1)},
             {"test_batch.bin", samples::cifar10(5)}}),
       "",
       cifar_images(3),
       {0, 1, 0},
       10},
      {"zip", one("x.zip", samples::zip(files)), "x.zip", three(3), none, 0},
      {"zip_labelled", one("x.zip", samples::zip(labelled, false)), "x.zip", three(3), {3, 0, 1}, 5},
      {"folder", many(files), "", three(3), none, 0},
      {"folder_labelled", many(labelled), "", three(3), {3, 0, 1}, 5},
      {"folder_of_classes", many(in_folders), "", three(3), {0, 0, 1}, 2},
      {"folder_of_jpeg",
       many({{"a.jpeg", samples::jpeg(Image{4, 4, 1, std::vector<std::uint8_t>(16, 255)})}}),
       "",
       {Image{4, 4, 3, std::vector<std::uint8_t>(48, 255)}},
       {-1},
       0},
      {"npy_u8", one("x.npy", bytes3), "x.npy", three(3), none, 0},
      {"npy_f32", one("x.npy", floats), "x.npy", three(3), none, 0},
      {"npy_f64", one("x.npy", doubles), "x.npy", three(1), none, 0},
      {"npz", one("x.npz", samples::zip({{"x.npy", bytes1}, {"y.npy", y}})), "x.npz", three(1), {2, 0, 1}, 3},
      {"npz_arr_0", one("x.npz", samples::zip({{"arr_0.npy", bytes3}}, false)), "x.npz", three(3), none, 0},
  };
}

Image image_of(const Dataset& set, std::int64_t i) {
  Image out{set.height(), set.width(), set.channels(),
            std::vector<std::uint8_t>(static_cast<std::size_t>(set.image_bytes()))};
  set.read(i, out.pixels);
  return out;
}

}  // namespace sgm
