#include "sgm/core/random.h"
#include "sgm/data/dataset.h"

namespace sgm {
namespace {

class RandomDataset final : public Dataset {
 public:
  RandomDataset(int size, int channels) : size_(size), channels_(channels) {}
  std::int64_t size() const override { return 1024; }
  int height() const override { return size_; }
  int width() const override { return size_; }
  int channels() const override { return channels_; }
  int label(std::int64_t) const override { return -1; }
  int num_classes() const override { return 0; }
  const std::vector<std::string>& class_names() const override { return no_names_; }
  bool is_in_memory() const override { return true; }
  std::string describe() const override { return "random pixels"; }
  void read(std::int64_t i, std::span<std::uint8_t> out) const override {
    for (std::size_t j = 0; j < out.size(); ++j)
      out[j] = static_cast<std::uint8_t>(
          philox(static_cast<std::uint32_t>(j), static_cast<std::uint32_t>(i), 0, 0, 7).word[0]);
  }

 private:
  int size_, channels_;
  std::vector<std::string> no_names_;
};

}  // namespace

std::unique_ptr<Dataset> random_dataset(int size, int channels) {
  return std::make_unique<RandomDataset>(size, channels);
}

}  // namespace sgm
