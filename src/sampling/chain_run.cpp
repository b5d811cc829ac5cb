#include "sampling/chain_run.h"

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

class ChainRun {
 public:
  ChainRun(std::span<const Slot> slots, std::span<const TimePoint> grid, bool denoise, Context& context,
           const ScoreFn& score, const SampleRequest& request, const Tensor& start)
      : slots_(slots),
        grid_(grid),
        denoise_(denoise),
        context_(context),
        score_(score),
        request_(request),
        constraint_(request.constraint.get()),
        noise_(noise_of(request)),
        at_(grid.front()),
        numbers_(context, request.shape[0], all_numbers().size()),
        drawn_(Tensor::zeros(context, {static_cast<std::int64_t>(slots.size() / 2 + 1)}, DType::f64)),
        x_(first_batch(start)),
        // Only what reads all that changes from the device can be captured.
        captured_(context, request.capture && !request.noise && score.takes_numbers()) {}

  SampleResult operator()() {
    const auto steps = static_cast<std::int64_t>(grid_.size());
    const std::int64_t stride = std::max<std::int64_t>(1, steps / 100);
    std::int64_t done = 0;
    for (bool go_on = true; done < steps && go_on;) {
      prepare(done);
      const bool with_mean = denoise_ && done + 1 == steps;
      const std::int64_t before = nfe_;
      if (with_mean)
        update(true);
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

  /// The time of the update after that of `slot`; at the end of the run the last time once more.
  const TimePoint& next(std::size_t slot) const {
    return slot + 1 < slots_.size() || index_ + 1 == grid_.size() ? at_ : grid_[index_ + 1];
  }

  /// What the updates of the present time depend on: the score's numbers, then those of each slot's update
  /// and of the constraint after it.
  std::vector<double> all_numbers() const {
    std::vector<double> all(kOfScore);
    if (score_.takes_numbers()) {
      const ScoreFn::Numbers now = score_.numbers({at_, 0});
      all = {now.label, now.scale};
    }
    const auto append = [&all](const std::vector<double>& more) {
      all.insert(all.end(), more.begin(), more.end());
    };
    for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
      append(slots_[slot].updater.numbers(at_));
      if (constraint_) append(constraint_->numbers(next(slot), at_));
    }
    return all;
  }

  Tensor first_batch(const Tensor& start) const {
    if (!constraint_) return start.clone();
    const std::vector<double> numbers = constraint_->numbers(at_, at_);
    return constraint_->start(start, std::vector<Coefficient>(numbers.begin(), numbers.end()),
                              noise_(Purpose::constraint, 0, start));
  }

  /// Hands the numbers of update `index` to the device.
  void prepare(std::int64_t index) {
    index_ = static_cast<std::uint32_t>(index);
    at_ = grid_[index_];
    const std::vector<double> all = all_numbers();
    for (std::size_t i = 0; i < all.size(); ++i) numbers_.set(i, all[i]);
    std::vector<std::uint32_t> drawn;
    for (std::size_t slot = 0; slot <= slots_.size(); ++slot) drawn.push_back(draws_before(slot));
    context_.copy_from_host(drawn_.data<double>(), drawn.data(), drawn.size() * sizeof drawn[0]);
  }

  /// Draws of noise before the present time, of one slot or, counted after the slots, of the constraint.
  std::uint32_t draws_before(std::size_t slot) const {
    const auto slots = static_cast<std::uint32_t>(slots_.size());
    return slot < slots ? index_ * slots_[slot].updater.draws() : 1 + index_ * slots;
  }

  /// The slots in turn, on x_ in place.
  void update(bool with_mean) {
    State state{x_, {}};
    std::size_t used = kOfScore;
    const auto take = [&](std::size_t count) {
      used += count;
      return numbers_.from(used - count, count);
    };
    for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
      const Range phase(context_, slots_[slot].purpose == Purpose::predictor ? "predictor" : "corrector",
                        RangeKind::phase);
      const Updater& updater = slots_[slot].updater;
      state = updater.step(state.x, part(slot, take(updater.numbers(at_).size()), with_mean));
      if (!with_mean) state.x_mean = {};
      if (!constraint_) continue;
      const std::size_t count = constraint_->numbers(at_, at_).size();
      state = constraint_->impose(
          state, take(count),
          noise(Purpose::constraint, slots_.size(), static_cast<std::uint32_t>(slot), state.x));
    }
    if (with_mean) x_mean_ = state.x_mean;
    if (state.x.version() != x_.version()) x_.copy_from(state.x);
  }

  Update part(std::size_t slot, std::span<const Coefficient> numbers, bool with_mean) {
    Update update{};
    update.numbers = numbers;
    update.want_mean = with_mean;
    update.score = [this](const Tensor& x) {
      ++nfe_;
      return score_.takes_numbers() ? score_.evaluate(x, numbers_.tensor(0), numbers_.tensor(1))
                                    : score_at(score_, x, at_);
    };
    update.noise = [this, slot](std::uint32_t draw, const Tensor& like) {
      return noise(slots_[slot].purpose, slot, draw, like);
    };
    return update;
  }

  /// Draw number `draw` of the present time, for slot `slot`.
  Noise noise(Purpose purpose, std::size_t slot, std::uint32_t draw, const Tensor& like) const {
    if (request_.noise) return noise_(purpose, draws_before(slot) + draw, like);
    Noise noise = noise_(purpose, draw, like);
    noise.key.step_from = reinterpret_cast<const std::uint32_t*>(drawn_.data<double>()) + slot;
    return noise;
  }

  std::span<const Slot> slots_;
  std::span<const TimePoint> grid_;
  bool denoise_;
  Context& context_;
  const ScoreFn& score_;
  const SampleRequest& request_;
  const Constraint* constraint_;  // null: none
  NoiseSource noise_;
  std::uint32_t index_ = 0;  // of the present time
  TimePoint at_;
  StepNumbers numbers_;
  Tensor drawn_;  // draws_before() of every slot and the constraint, for the device
  Tensor x_, x_mean_;
  CapturedStep captured_;
  std::int64_t nfe_ = 0, per_step_ = 0;
};

}  // namespace

SampleResult run_chain(std::span<const Slot> slots, std::span<const TimePoint> grid, bool denoise,
                       Context& context, const ScoreFn& score, const SampleRequest& request,
                       const Tensor& start) {
  return ChainRun(slots, grid, denoise, context, score, request, start)();
}

}  // namespace sgm
