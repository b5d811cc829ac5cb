#pragma once
// Batches of training images, and images of a set by number.

#include <cstdint>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "sgm/core/random.h"
#include "sgm/core/types.h"
#include "sgm/data/dataset.h"
#include "sgm/tensor/tensor.h"

namespace sgm {

struct LoaderOptions {
  int batch_size = 128;
  std::uint64_t seed = 42;
  bool shuffle = true;
  bool random_flip = false;             // mirror left-right with probability 1/2
  bool uniform_dequantization = false;  // (255 x + u) / 256 with u ~ U[0, 1) instead of x = byte / 255
  int crop_padding = 0;                 // moved by up to this many pixels along each axis, zeros moving in
  bool centered = false;                // 2x - 1: data space is [-1, 1] instead of [0, 1]
};

struct Batch {
  std::vector<float> images;  // [N, H, W, C] in data space
  std::vector<int> labels;    // [N]; -1 when the set has none
  std::int64_t first = 0;     // position of the first image in the endless sequence
  Shape shape;                // [N, H, W, C]
};

/// The set repeated for ever, in a new order each epoch, cut into batches: batch k holds positions
/// [k N, (k + 1) N) of the sequence. Batches run across the ends of epochs, so nothing is dropped. Batch k is
/// a pure function of the set, the options and k: every draw is Philox of (seed, purpose, position), so a
/// resumed run needs only the number of its next batch.
class Loader {
 public:
  /// The set must outlive the loader.
  Loader(const Dataset& dataset, const LoaderOptions& options);

  /// Batch k >= 0. Threads may call it at the same time.
  Batch at(std::int64_t k) const;

  /// The batch at position(), which then moves on; the following one is prepared in the background.
  Batch next();
  std::int64_t position() const { return position_; }
  void set_position(std::int64_t k);

 private:
  using Permutation = std::shared_ptr<const std::vector<std::uint32_t>>;

  Permutation permutation(std::int64_t epoch) const;
  void fill(std::int64_t position, std::int64_t image, float* out) const;

  const Dataset& dataset_;
  LoaderOptions options_;
  std::int64_t position_ = 0;
  mutable std::mutex mutex_;
  mutable std::map<std::int64_t, Permutation> permutations_;  // of the epochs in use, guarded by mutex_
  std::int64_t prepared_position_ = -1;
  std::future<Batch> prepared_;  // last: it ends before what it uses
};

/// Images first .. first + count - 1 in data space (centered: [-1, 1], else [0, 1]), f32 [count, H, W, C], on
/// the context's device. With a key they are dequantised, x = (byte + u) / 256 with u ~ U[0, 1) instead of
/// byte / 255; entry 0 is image `first`. Throws Error when the set has no such images.
Tensor read_images(const Dataset& dataset, std::int64_t first, std::int64_t count, bool centered,
                   Context& context, const std::optional<NoiseKey>& dequantise = {});

}  // namespace sgm
