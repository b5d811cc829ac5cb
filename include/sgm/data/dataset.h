#pragma once
// Sets of labelled images of one size.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "sgm/core/config.h"

namespace sgm {

/// Images [height, width, channels] of bytes with optional class labels. Threads may share one object.
class Dataset {
 public:
  virtual ~Dataset() = default;

  virtual std::int64_t size() const = 0;
  virtual int height() const = 0;
  virtual int width() const = 0;
  virtual int channels() const = 0;

  /// Class of image i in [0, num_classes()), or -1 when the set has no labels.
  virtual int label(std::int64_t i) const = 0;
  /// 0 when the set has no labels.
  virtual int num_classes() const = 0;
  /// One per class, or empty when the set does not tell them.
  virtual const std::vector<std::string>& class_names() const = 0;

  /// Copies image i, [height, width, channels], to `out`. Throws Error naming the file when it turns out
  /// damaged.
  virtual void read(std::int64_t i, std::span<std::uint8_t> out) const = 0;
  /// Whether read() is a copy from memory; if not, it decodes a file.
  virtual bool is_in_memory() const = 0;
  /// One line: path, format, number and size of the images, classes.
  virtual std::string describe() const = 0;

  std::int64_t image_bytes() const { return std::int64_t{1} * height() * width() * channels(); }
};

/// Opens a set of images:
///
///   IDX file, raw or .gz       (MNIST) labels from the file beside it named labels for images, idx1 for idx3
///   folder of IDX files        the one named train, or the only one
///   CIFAR-10 .bin file         records of one label byte and 3072 pixels
///   folder of CIFAR-10 files   data_batch_*.bin together; give test_batch.bin itself for the test set
///   .npy file                  [N, H, W] or [N, H, W, C]: bytes, or floats in [0, 1]
///   .npz file                  the same under images, x, arr_0 or samples; labels under labels or y
///   .zip of images             sorted by name; labels from dataset.json, if any, as EDM's tools write it:
///                              {"labels": [[name, class], ...] or null, "classes": [names] (optional)}
///   folder of images           recursive, sorted by path; labels from dataset.json, or the names of the
///                              top subfolders when every image lies in one
///
/// image_size: side of the square to which images are resized and cropped (resize_and_crop); 0 keeps their
/// size, which must then be the same for all. num_channels: 1 or 3; 0 keeps theirs. Sets of up to 512 MiB of
/// pixels are decoded here, once; larger ones when read. Throws Error naming file and remedy.
std::unique_ptr<Dataset> open_dataset(const std::filesystem::path& path, int image_size = 0,
                                      int num_channels = 0);

/// What config.path names, of config.image_size and config.num_channels; its first config.count images.
std::unique_ptr<Dataset> open_dataset(const DataConfig& config);

/// The first `count` images of a set. Throws Error when it has fewer.
std::unique_ptr<Dataset> first_images(std::unique_ptr<Dataset> set, std::int64_t count);

/// 1024 square images of uniformly random pixels without labels: for timing, which does not depend on what
/// the images show.
std::unique_ptr<Dataset> random_dataset(int size, int channels);

}  // namespace sgm
