#include <algorithm>

#include "sampling/sampler_parts.h"
#include "sgm/core/captured_step.h"

namespace sgm {
namespace {

/// Numbers that change from step to step, at fixed addresses where the device reads them.
class StepNumbers {
 public:
  StepNumbers(Context& context, std::int64_t n, std::size_t count) : n_(n) {
    for (std::size_t i = 0; i < count; ++i) values_.emplace_back(Tensor::zeros(context, {n}, DType::f64));
  }
  /// Number i, for every image of the batch.
  void set(std::size_t i, double value) {
    Tensor column = values_[i].per_image();
    column.upload(std::vector<double>(static_cast<std::size_t>(n_), value));
  }
  std::span<const Coefficient> from(std::size_t first, std::size_t count) const {
    return std::span(values_).subspan(first, count);
  }
  const Tensor& tensor(std::size_t i) const { return values_[i].per_image(); }

 private:
  std::int64_t n_;
  std::vector<Coefficient> values_;
};

/// One run of predictor-corrector sampling.
class PCRun {
 public:
  PCRun(const SDE& sde, const Predictor& predictor, const Corrector& corrector, bool denoise,
        std::span<const TimePoint> grid, Context& context, const ScoreFn& score, const SampleRequest& request)
      : predictor_(predictor),
        corrector_(corrector),
        denoise_(denoise),
        grid_(grid),
        context_(context),
        score_(score),
        request_(request),
        noise_(noise_of(request)),
        of_corrector_(corrector.numbers(grid.front()).size()),
        of_predictor_(predictor.numbers(grid.front()).size()),
        numbers_(context, request.shape[0], kOfScore + of_corrector_ + of_predictor_),
        drawn_(Tensor::zeros(context, {1}, DType::f64)),
        x_(start_of(sde, context, request, noise_).clone()),
        // Only what reads all that changes from the device can be captured.
        captured_(context,
                  request.capture && !request.constraint && !request.noise && score.takes_numbers()) {}

  SampleResult operator()() {
    const auto steps = static_cast<std::int64_t>(grid_.size());
    const std::int64_t stride = std::max<std::int64_t>(1, steps / 100);
    std::int64_t done = 0;
    for (bool go_on = true; done < steps && go_on;) {
      prepare(done);
      const bool with_mean = denoise_ && done + 1 == steps;
      const std::int64_t before = nfe_;
      if (with_mean || request_.constraint)
        update(with_mean);
      else
        captured_.run([this] { update(false); });
      if (nfe_ == before) nfe_ += per_step_;
      per_step_ = nfe_ - before;
      ++done;
      if (!request_.progress) continue;
      if (done % stride == 0) context_.synchronize();  // else the device would lag far behind
      go_on = request_.progress(done, steps);
    }
    SampleResult result;
    result.complete = done == steps;
    result.x = result.complete && denoise_ ? x_mean_ : x_;
    result.nfe.assign(static_cast<std::size_t>(request_.shape[0]), nfe_);
    return result;
  }

 private:
  static constexpr std::size_t kOfScore = 2;  // label and scale

  /// Hands the numbers of update `index` to the device.
  void prepare(std::int64_t index) {
    at_ = grid_[static_cast<std::size_t>(index)];
    index_ = static_cast<std::uint32_t>(index);
    std::vector<double> all(kOfScore);
    if (score_.takes_numbers()) {
      const ScoreFn::Numbers now = score_.numbers({at_, 0});
      all = {now.label, now.scale};
    }
    for (const double number : corrector_.numbers(at_)) all.push_back(number);
    for (const double number : predictor_.numbers(at_)) all.push_back(number);
    for (std::size_t i = 0; i < all.size(); ++i) numbers_.set(i, all[i]);
    const std::uint32_t drawn[] = {index_ * corrector_.draws(), index_ * predictor_.draws()};
    context_.copy_from_host(drawn_.data<double>(), drawn, sizeof drawn);
  }

  /// The corrector, then the predictor, on x_ in place.
  void update(bool with_mean) {
    State state{x_, {}};
    state = constrain(corrector_.step(state.x, part(0, with_mean)), with_mean, 0);
    state = constrain(predictor_.step(state.x, part(1, with_mean)), with_mean, 1);
    if (with_mean) x_mean_ = state.x_mean;
    if (state.x.version() != x_.version()) x_.copy_from(state.x);
  }

  Update part(std::uint32_t slot, bool with_mean) {
    Update update{};
    update.numbers = slot == 0 ? numbers_.from(kOfScore, of_corrector_)
                               : numbers_.from(kOfScore + of_corrector_, of_predictor_);
    update.want_mean = with_mean;
    update.score = [this](const Tensor& x) {
      ++nfe_;
      return score_.takes_numbers() ? score_.evaluate(x, numbers_.tensor(0), numbers_.tensor(1))
                                    : score_at(score_, x, at_);
    };
    update.noise = [this, slot](std::uint32_t draw, const Tensor& like) {
      const Purpose purpose = slot == 0 ? Purpose::corrector : Purpose::predictor;
      const std::uint32_t first = index_ * (slot == 0 ? corrector_ : predictor_).draws();
      if (request_.noise) return noise_(purpose, first + draw, like);
      Noise noise = noise_(purpose, draw, like);
      noise.key.step_from = reinterpret_cast<const std::uint32_t*>(drawn_.data<double>()) + slot;
      return noise;
    };
    return update;
  }

  State constrain(State state, bool with_mean, std::uint32_t slot) const {
    if (!request_.constraint) return state;
    if (!with_mean) state.x_mean = {};
    return request_.constraint(std::move(state), at_.t, 2 * index_ + slot);
  }

  const Predictor& predictor_;
  const Corrector& corrector_;
  bool denoise_;
  std::span<const TimePoint> grid_;
  Context& context_;
  const ScoreFn& score_;
  const SampleRequest& request_;
  NoiseSource noise_;
  std::size_t of_corrector_, of_predictor_;
  StepNumbers numbers_;
  Tensor drawn_;  // draws of noise before this update: the corrector's and the predictor's
  Tensor x_, x_mean_;
  CapturedStep captured_;
  TimePoint at_{};
  std::uint32_t index_ = 0;
  std::int64_t nfe_ = 0, per_step_ = 0;
};

/// Predictor-corrector sampling: at every noise scale the corrector, then the predictor. (Algorithm 1
/// predicts first; the order differs from the reference's at the two ends only.)
class PCSampler final : public Sampler {
 public:
  PCSampler(const SDE& sde, const SamplingConfig& config)
      : sde_(sde),
        grid_(sampling_grid(choose_steps(sde, config), choose_eps(sde, config))),
        predictor_(create_predictor(sde, config, grid_.front().num_scales)),
        corrector_(create_corrector(sde, config, grid_.front().num_scales)),
        denoise_(config.denoise) {}

  SampleResult sample(Context& context, const ScoreFn& score, const SampleRequest& request) const override {
    return PCRun(sde_, *predictor_, *corrector_, denoise_, grid_, context, score, request)();
  }

 private:
  const SDE& sde_;
  std::vector<TimePoint> grid_;
  std::unique_ptr<Predictor> predictor_;
  std::unique_ptr<Corrector> corrector_;
  bool denoise_;
};

}  // namespace

std::unique_ptr<Sampler> create_pc_sampler(const SDE& sde, const SamplingConfig& config) {
  return std::make_unique<PCSampler>(sde, config);
}

}  // namespace sgm
