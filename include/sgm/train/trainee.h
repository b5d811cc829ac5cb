#pragma once
// What every kind of training has in common: one step after another, with no files.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "sgm/core/captured_step.h"
#include "sgm/core/config.h"
#include "sgm/data/dataset.h"
#include "sgm/data/loader.h"
#include "sgm/nn/module.h"
#include "sgm/optim/optimizer.h"

namespace sgm {

/// A network with its data and its optimiser. Steps are numbered by the optimiser; the batch of a step and
/// whatever is random in it depend on seed and step alone, so that a resumed run continues bit for bit.
class Trainee {
 public:
  virtual ~Trainee() = default;
  Trainee(const Trainee&) = delete;
  Trainee& operator=(const Trainee&) = delete;

  struct Step {
    double loss = 0;       // mean over the batch
    double grad_norm = 0;  // before clipping
    double lr = 0;
    std::optional<double> accuracy = {};  // of classifiers: the share of images that are put in their class
    bool is_finite() const;
  };
  /// One batch.
  Step step();

  /// step() in two halves. launch() leaves a step to the device and returns; read() waits for all steps
  /// launched since the last read() and returns their mean loss and the norm of the last, or a norm that is
  /// not finite where one of them had such a one.
  void launch();
  Step read();
  /// Why steps are not captured and replayed; empty where they are, or as long as nobody knows.
  const std::string& why_not_captured() const { return captured_.why_not(); }

  const Config& config() const { return config_; }
  Context& context() const { return context_; }
  Module& module() { return *module_; }
  Optimizer& optimizer() { return optimizer_; }
  /// Images that go through the network at once: the batch, or a part of it.
  std::int64_t micro_batch() const { return images_.front().shape()[0]; }
  /// Bytes that the tape held at the end of the last forward pass that was launched call by call.
  std::size_t activation_bytes() const { return activation_bytes_; }
  /// Completed steps.
  std::int64_t position() const { return optimizer_.completed_steps(); }
  /// What its checkpoints are of.
  virtual const char* kind() const = 0;
  /// Continues from a checkpoint of the same model.
  void load(const std::filesystem::path& checkpoint);

 protected:
  /// How the rest is set up. capture = false launches every step call by call, also where the device can
  /// replay it.
  struct Options {
    LoaderOptions images;
    bool loss_per_image = false;  // losses() returns one number per image; else their mean
    bool capture = true;
  };
  /// Throws Error for images of another size than config.data wants. Dataset and context must outlive this.
  Trainee(const Config& config, const Dataset& dataset, Context& context, std::unique_ptr<Module> module,
          const Options& options);

  /// Storage of activations.
  DType compute() const { return compute_; }
  /// The micro-batches of a step, numbered from 0.
  std::size_t parts() const { return images_.size(); }
  /// The images of a micro-batch, [M, H, W, C], at a fixed address.
  const Tensor& images(std::size_t part) const { return images_[part]; }
  /// Draws of a micro-batch on the device: those of its images in the whole batch.
  NoiseKey noise_key(std::size_t part) const;
  /// The numbers of a micro-batch among those of the step's images.
  template <class T>
  std::span<const T> part_of(const std::vector<T>& of_batch, std::size_t part) const {
    const auto m = static_cast<std::size_t>(micro_batch());
    return std::span(of_batch).subspan(part * m, m);
  }

 private:
  /// Leaves on the device, at fixed addresses, what step number `step` needs of a batch besides its images.
  virtual void prepare(const Batch& batch, std::uint32_t step) = 0;
  /// The losses of a micro-batch whose mean is minimised, [1] or [M] f64, on the tape. Reads nothing that
  /// changes but what prepare() left, images() and noise_key().
  virtual Var losses(std::size_t part) = 0;
  /// The accuracy of `steps` steps since it was last asked for.
  virtual std::optional<double> read_accuracy(std::int64_t) { return {}; }

  void work();

  Config config_;
  Context& context_;
  std::unique_ptr<Module> module_;
  Optimizer optimizer_;
  Loader loader_;
  DType compute_;
  std::vector<Tensor> images_;  // of each micro-batch
  Tensor step_number_;          // of the noise and of the dropout masks
  Tensor loss_sum_;             // like losses(): of all micro-batches since the last read()
  Tensor one_;                  // like losses()
  std::int64_t unread_ = 0;
  std::size_t activation_bytes_ = 0;
  CapturedStep captured_;
};

/// How a configuration wants its images.
LoaderOptions loader_options(const Config& config);

}  // namespace sgm
