// Image files; PNG files also with their checksums repaired, so that damage reaches the decoder.

#include <string_view>

#include "data_samples.h"
#include "fuzz/fuzz.h"
#include "sgm/data/image.h"

namespace {

/// 17 x 9 pixels, RGB, in hexadecimal: our own writers make no such file.
constexpr std::string_view kProgressiveJpeg =
    "ffd8ffe000104a46494600010100000100010000ffdb0043000d090a0b0a080d0b0a0b0e0e0d0f13201513121213271c1e17"
    "202e2931302e292d2c333a4a3e333646372c2d405741464c4e525352323e5a615a50604a51524fffdb0043010e0e0e131113"
    "261515264f352d354f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f"
    "4f4f4f4f4f4f4f4fffc20011080009001103012200021101031101ffc4001600010101000000000000000000000000000400"
    "05ffc4001501010100000000000000000000000000000305ffda000c030100021003100000010356c11ceb5e2a5fffc4001a"
    "100002020300000000000000000000000000020104101331ffda00080101000105024ae2d7340bc8c7ffc400171100030100"
    "00000000000000000000000000020414ffda0008010301013f019a973439ffc4001911000203010000000000000000000000"
    "00000201031113ffda0008010201013f019b314eac7fffc400161001010100000000000000000000000000003120ffda0008"
    "010100063f0244c7ffc4001a100002020300000000000000000000000000011051113141ffda0008010100013f21b50818d0"
    "d4751fffda000c03010002000300000010bcff00ffc4001811000203000000000000000000000000000001112161ffda0008"
    "010301013f1098acd8ffc4001a1100020203000000000000000000000000000111c1417191ffda0008010201013f106cb18a"
    "6e8d1c3fffc4001e10000201030500000000000000000000000001211181c11071a1e1f1ffda0008010100013f1053558762"
    "3516ea5d8f1bb39e62c69fffd9";

/// 17 x 9 pixels, seven colours, one of them transparent.
constexpr std::string_view kPalettePng =
    "89504e470d0a1a0a0000000d494844520000001100000009040300000026c6da3f00000015504c5445b4c485b47e7a35c46c"
    "357e6eb43882b40000352a250639b15e0000000374524e53ffff00d7ca0d41000000404944415478da35c1c10d80201000b0"
    "1ee169a26e601cce6d99013790bf0abe6ce36034dc19b1549e041532c52aa62b2b148cf4d237881dfd8cb925388d26f97d72"
    "cc128f2ec87da90000000049454e44ae426082";

std::string from_hex(std::string_view hex) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes.push_back(static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  return bytes;
}

void check_image(const sgm::Image& image) {
  const std::size_t pixels = static_cast<std::size_t>(image.height) * static_cast<std::size_t>(image.width);
  if (image.height < 1 || image.width < 1 || image.pixels.size() != pixels * image.channels) std::abort();
}

}  // namespace

std::vector<std::string> fuzz_seeds() {
  using namespace sgm::samples;
  std::vector<std::string> seeds = {"P5 3 1 100\n123", "P6 1 1 65535\n123456", from_hex(kProgressiveJpeg),
                                    from_hex(kPalettePng)};
  for (const int channels : {1, 3}) {
    const sgm::Image tiny = image(3, 5, channels), larger = image(19, 33, channels);
    seeds.insert(seeds.end(), {png(tiny), png(larger), jpeg(tiny), jpeg(larger), bmp(tiny), pnm(tiny)});
  }
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sgm;
  const auto decode = [](std::span<const std::byte> file) {
    const Image image = decode_image(file, "fuzz");
    check_image(image);
    check_image(resize_and_crop(image, 7));
  };
  const std::string repaired = samples::with_png_checksums({reinterpret_cast<const char*>(data), size});
  expect_success_or_error(reinterpret_cast<const std::uint8_t*>(repaired.data()), size, decode);
  return expect_success_or_error(data, size, decode);
}
