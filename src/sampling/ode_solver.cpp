#include "sgm/sampling/ode_solver.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "sampling/runge_kutta.h"
#include "sgm/core/error.h"
#include "sgm/core/registry.h"

namespace sgm {
namespace {

/// Where one image stands.
struct Track {
  int image;
  double t;
  double h = 0.0;         // size of the next attempt, positive
  double t_next = 0.0;    // where the attempt in progress ends
  bool rejected = false;  // the last attempt of this step was
};

class Integration {
 public:
  Integration(const RatesFn& rates, const Tensor& y0, double t0, double t1, const ODEOptions& options)
      : rates_(rates),
        options_(options),
        method_(find_entry(kTableaus, options.solver, "sampling.solver")),
        t0_(t0),
        t1_(t1),
        direction_(t1 >= t0 ? 1.0 : -1.0),
        rtol_(std::max(options.rtol, 100.0 * std::numeric_limits<double>::epsilon())),
        y_(y0) {
    check(options.fixed_steps > 0 || (options.fixed_steps == 0 && method_.is_adaptive()), "ode: solver ",
          method_.name, " has no error estimate and needs a number of steps, got ", options.fixed_steps);
    const std::size_t n = static_cast<std::size_t>(y0.shape()[0]);
    for (std::size_t i = 0; i < n; ++i) tracks_.push_back({static_cast<int>(i), t0});
    along_.assign(n, 0.0);
    solution_.y = y0;
    solution_.along.assign(n, 0.0);
    solution_.nfe.assign(n, 0);
    solution_.times.assign(n, {t0});
  }

  ODESolution run() {
    if (t0_ == t1_ || tracks_.empty()) return std::move(solution_);
    if (!is_fixed()) start();
    for (std::int64_t attempt = 0; !tracks_.empty(); ++attempt) {
      check(is_fixed() || attempt < options_.max_attempts, "ode: image ", tracks_[0].image,
            " has come only to t = ", tracks_[0].t, " after ", attempt,
            " attempted steps; raise sampling.rtol and sampling.atol");
      step(attempt);
      if (options_.progress && !options_.progress(fraction()) && !tracks_.empty()) {
        keep_arrived(y_, along_, std::vector<bool>(tracks_.size(), true));
        solution_.complete = false;
        break;
      }
    }
    return std::move(solution_);
  }

 private:
  using PerImage = std::vector<double>;

  bool is_fixed() const { return options_.fixed_steps > 0; }

  /// The rates with every image at its t + node * (signed step).
  Rates evaluate(const Tensor& y, const PerImage& h, double node) {
    std::vector<ImageTime> times(tracks_.size());
    for (std::size_t i = 0; i < times.size(); ++i) {
      const double t = node == 1.0 ? tracks_[i].t_next : tracks_[i].t + node * h[i];
      times[i] = {{.t = t}, tracks_[i].image};
      ++solution_.nfe[static_cast<std::size_t>(tracks_[i].image)];
    }
    Rates result = rates_(y, times);
    check(result.y.shape() == y.shape() && result.y.dtype() == DType::f64, "ode: drift must be f64 ",
          y.shape(), ", got ", result.y.dtype(), ' ', result.y.shape());
    check(result.along.empty() || result.along.size() == times.size(), "ode: ", result.along.size(),
          " rates along the path for ", times.size(), " images");
    return result;
  }

  /// The sum of the stages with these coefficients: of the states as terms of an op, of the numbers along the
  /// path as it is.
  struct StageSum {
    std::vector<Term> terms;
    PerImage along;
  };
  StageSum sum_of(std::span<const double> coefficients, std::span<const Rates> stages) const {
    StageSum sum;
    sum.along.assign(stages[0].along.size(), 0.0);
    for (std::size_t j = 0; j < coefficients.size(); ++j) {
      sum.terms.push_back({coefficients[j], &stages[j].y});
      for (std::size_t i = 0; i < sum.along.size(); ++i) sum.along[i] += coefficients[j] * stages[j].along[i];
    }
    return sum;
  }

  /// rms over an image's elements (over those of the whole batch with shared steps) of a scaled sum; a number
  /// along the path is one element more.
  PerImage rms(const StageSum& sum, const Tensor& y_other, const PerImage& along_other) const {
    PerImage norms = scaled_squared_norms(sum.terms, y_, y_other, rtol_, options_.atol).to_host_f64();
    for (std::size_t i = 0; i < sum.along.size(); ++i) {
      const double size = std::max(std::abs(along_[i]), std::abs(along_other[i]));
      const double scaled = sum.along[i] / (options_.atol + rtol_ * size);
      norms[i] += scaled * scaled;
    }
    if (options_.shared_steps) {
      double total = 0.0;
      for (const double norm : norms) total += norm;
      norms.assign(norms.size(), total / static_cast<double>(norms.size()));
    }
    // Divided by numbers of one image, so that its rounding does not depend on the batch.
    const std::int64_t elements = with_batch(y_.shape(), 1).numel() + (sum.along.empty() ? 0 : 1);
    for (double& norm : norms) norm = std::sqrt(norm / static_cast<double>(elements));
    return norms;
  }

  Tensor per_image(const PerImage& values) const {
    return Tensor::from_host(y_.context(), std::span<const double>(values),
                             {static_cast<std::int64_t>(values.size())});
  }

  /// First evaluation and first step sizes.
  void start() {
    const double span = std::abs(t1_ - t0_);
    PerImage h(tracks_.size(), 0.0);
    k_[0] = evaluate(y_, h, 0.0);
    check(
        k_[0].along.empty() || options_.atol > 0,
        "ode: sampling.atol must be positive where a number is integrated along the path, as in likelihoods");
    const PerImage d0 = rms({{Term{1.0, &y_}}, k_[0].along.empty() ? PerImage() : along_}, y_, along_);
    const PerImage d1 = rms(sum_of(std::array{1.0}, k_), y_, along_);
    for (std::size_t i = 0; i < h.size(); ++i) {
      check(std::isfinite(d0[i]) && std::isfinite(d1[i]), "ode: state or drift of image ", i,
            " is not finite at t = ", t0_);
      h[i] = direction_ * std::min(span, d0[i] < 1e-5 || d1[i] < 1e-5 ? 1e-6 : 0.01 * d0[i] / d1[i]);
      tracks_[i].t_next = t0_ + h[i];
    }
    const Tensor y1 = linear_combination(y_, per_image(h), std::array{Term{1.0, &k_[0].y}});
    const std::array both{evaluate(y1, h, 1.0), k_[0]};
    const PerImage d2 = rms(sum_of(std::array{1.0, -1.0}, both), y_, along_);
    for (std::size_t i = 0; i < h.size(); ++i) {
      const double h0 = std::abs(h[i]), curvature = d2[i] / h0;
      const double h1 = d1[i] <= 1e-15 && curvature <= 1e-15
                            ? std::max(1e-6, 1e-3 * h0)
                            : std::pow(0.01 / std::max(d1[i], curvature), 1.0 / method_.error_order);
      tracks_[i].h = std::min({100.0 * h0, h1, span});
    }
  }

  /// Fixes the ends of the next attempts; returns their signed lengths.
  PerImage plan() {
    PerImage h;
    for (Track& track : tracks_) {
      const double next = std::nextafter(track.t, direction_ * std::numeric_limits<double>::infinity());
      const double least = 10.0 * std::abs(next - track.t);
      check(!track.rejected || track.h >= least, "ode: image ", track.image, ": the step at t = ", track.t,
            " became too small; the score is not finite or not continuous there");
      track.t_next = track.t + direction_ * std::max(track.h, least);
      if (direction_ * (track.t_next - t1_) > 0.0) track.t_next = t1_;
      h.push_back(track.t_next - track.t);
      track.h = std::abs(h.back());
    }
    return h;
  }

  /// The same for step `index` of equal ones.
  PerImage plan_equal(std::int64_t index) {
    const double done = static_cast<double>(index + 1) / static_cast<double>(options_.fixed_steps);
    const double t_next = index + 1 == options_.fixed_steps ? t1_ : t0_ + (t1_ - t0_) * done;
    for (Track& track : tracks_) track.t_next = t_next;
    return PerImage(tracks_.size(), t_next - tracks_[0].t);
  }

  /// One attempt of every image that has not arrived.
  void step(std::int64_t index) {
    const PerImage h = is_fixed() ? plan_equal(index) : plan();
    const Tensor h_tensor = per_image(h);
    if (is_fixed()) k_[0] = evaluate(y_, h, 0.0);
    Tensor y_new;
    PerImage along_new = along_;
    for (int row = 1; row < method_.rows; ++row) {
      const StageSum sum = sum_of(std::span(method_.weight[row]).first(static_cast<std::size_t>(row)), k_);
      y_new = linear_combination(y_, h_tensor, sum.terms);
      for (std::size_t i = 0; i < sum.along.size(); ++i)
        along_new[i] = std::fma(h[i], sum.along[i], along_[i]);
      if (row + 1 < method_.rows || !is_fixed()) k_[row] = evaluate(y_new, h, method_.node[row]);
    }
    if (is_fixed()) return advance(y_new, along_new, accept_all(y_new));
    const StageSum sum = sum_of(std::span(method_.error).first(static_cast<std::size_t>(method_.rows)), k_);
    PerImage error = rms(sum, y_new, along_new);
    for (std::size_t i = 0; i < error.size(); ++i) error[i] *= std::abs(h[i]);
    advance(y_new, along_new, decide(error));
  }

  void accept(Track& track) {
    track.t = track.t_next;
    solution_.times[static_cast<std::size_t>(track.image)].push_back(track.t);
  }

  std::vector<bool> accept_all(const Tensor& y_new) {
    for (Track& track : tracks_) accept(track);
    if (tracks_[0].t == t1_) {
      const PerImage norms = squared_norms(y_new).to_host_f64();
      for (std::size_t i = 0; i < norms.size(); ++i)
        check(std::isfinite(norms[i]), "ode: image ", i, " is not finite after ", options_.fixed_steps,
              " steps of ", method_.name, "; raise sampling.steps or choose an adaptive sampling.solver");
    }
    return std::vector<bool>(tracks_.size(), true);
  }

  /// Accepts or rejects every attempt and chooses the next step sizes.
  std::vector<bool> decide(const PerImage& error) {
    std::vector<bool> accepted(tracks_.size());
    for (std::size_t i = 0; i < tracks_.size(); ++i) {
      Track& track = tracks_[i];
      accepted[i] = error[i] < 1.0;                                                // not where it is NaN
      const double factor = 0.9 * std::pow(error[i], -1.0 / method_.error_order);  // infinite without error
      if (accepted[i]) {
        track.h *= std::min(track.rejected ? 1.0 : 10.0, factor);
        accept(track);
      } else {
        track.h *= factor > 0.2 ? factor : 0.2;
      }
      track.rejected = !accepted[i];
    }
    return accepted;
  }

  /// Moves on to the accepted states and drops the images that have arrived.
  void advance(const Tensor& y_new, const PerImage& along_new, const std::vector<bool>& accepted) {
    const std::int64_t m = static_cast<std::int64_t>(tracks_.size());
    std::vector<bool> arrived(tracks_.size());
    std::vector<std::int64_t> rows;  // of those on their way: in the old states, or m further in the new ones
    std::vector<Track> rest;
    bool all_accepted = true;
    for (std::size_t i = 0; i < tracks_.size(); ++i) {
      arrived[i] = accepted[i] && tracks_[i].t == t1_;
      all_accepted = all_accepted && accepted[i];
      if (arrived[i]) continue;
      rows.push_back(static_cast<std::int64_t>(i) + (accepted[i] ? m : 0));
      rest.push_back(tracks_[i]);
    }
    const bool none_arrived = rest.size() == tracks_.size();
    if (!none_arrived) keep_arrived(y_new, along_new, arrived);
    tracks_ = std::move(rest);
    if (tracks_.empty()) return;
    along_ = chosen(along_, along_new, rows);
    const bool whole = none_arrived && all_accepted;
    Rates& last = k_[static_cast<std::size_t>(method_.rows - 1)];
    y_ = whole ? y_new : gather_images(y_, y_new, rows);
    if (is_fixed()) return;
    if (!last.along.empty()) k_[0].along = chosen(k_[0].along, last.along, rows);
    k_[0].y = whole ? last.y : gather_images(k_[0].y, last.y, rows);
  }

  /// Entries `rows` of the two lists, numbered through.
  static PerImage chosen(const PerImage& first, const PerImage& second, std::span<const std::int64_t> rows) {
    PerImage result;
    for (const std::int64_t row : rows) {
      const auto i = static_cast<std::size_t>(row);
      result.push_back(i < first.size() ? first[i] : second[i - first.size()]);
    }
    return result;
  }

  /// Copies the chosen images of the current batch into the solution.
  void keep_arrived(const Tensor& y, const PerImage& along, const std::vector<bool>& chosen) {
    const std::int64_t n = solution_.y.shape()[0];
    std::vector<std::int64_t> rows(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<std::int64_t>(i);
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      if (!chosen[i]) continue;
      const auto image = static_cast<std::size_t>(tracks_[i].image);
      rows[image] = n + static_cast<std::int64_t>(i);
      solution_.along[image] = along[i];
    }
    solution_.y = gather_images(solution_.y, y, rows);
  }

  /// Of the way that the last image has come.
  double fraction() const {
    double least = 1.0;
    for (const Track& track : tracks_) least = std::min(least, (track.t - t0_) / (t1_ - t0_));
    return least;
  }

  const RatesFn& rates_;
  const ODEOptions& options_;
  const Tableau& method_;
  const double t0_, t1_, direction_, rtol_;
  std::vector<Track> tracks_;  // of the images on their way, in the order of y_
  Tensor y_;
  PerImage along_;
  std::array<Rates, kMaxStages> k_;  // at the stages; the last becomes the next step's first
  ODESolution solution_;
};

}  // namespace

ODESolution integrate_along(const RatesFn& rates, const Tensor& y0, double t0, double t1,
                            const ODEOptions& options) {
  check(y0.defined() && y0.dtype() == DType::f64 && y0.shape().rank() >= 1,
        "ode: the state must be an f64 batch [N, ...], got ", y0.dtype(), ' ', y0.shape());
  check(std::isfinite(t0) && std::isfinite(t1), "ode: times must be finite, got ", t0, " and ", t1);
  check(options.rtol >= 0 && options.atol >= 0 && options.rtol + options.atol > 0 && options.rtol < 1 &&
            options.atol < 1e9,
        "ode: sampling.rtol and sampling.atol must not be negative nor both zero, got ", options.rtol,
        " and ", options.atol);
  return Integration(rates, y0, t0, t1, options).run();
}

ODESolution integrate(const DriftFn& drift, const Tensor& y0, double t0, double t1,
                      const ODEOptions& options) {
  const RatesFn rates = [&drift](const Tensor& y, std::span<const ImageTime> times) {
    return Rates{drift(y, times), {}};
  };
  return integrate_along(rates, y0, t0, t1, options);
}

std::vector<std::string> solver_names() { return names_of(kTableaus); }

ODEOptions ode_options(const SDE& sde, const SamplingConfig& config) {
  const bool is_adaptive = find_entry(kTableaus, config.solver, "sampling.solver").is_adaptive();
  check(config.steps >= 0, "sampling.steps must not be negative, got ", config.steps);
  ODEOptions options;
  options.solver = config.solver;
  if (!is_adaptive) options.fixed_steps = config.steps == 0 ? sde.num_scales() : config.steps;
  options.rtol = config.rtol;
  options.atol = config.atol;
  options.shared_steps = config.batch_mean_norms;
  return options;
}

FlowCoefficients flow_coefficients(const SDE& sde, std::span<const ImageTime> times) {
  FlowCoefficients flow;
  for (const ImageTime& time : times) {
    const double g = sde.diffusion(time.t);
    flow.of_x.push_back(sde.drift(time.t));
    flow.of_score.push_back(-0.5 * g * g);
  }
  return flow;
}

Tensor flow_drift(const FlowCoefficients& flow, const Tensor& y, const Tensor& score) {
  const Shape n{y.shape()[0]};
  AffineTerms terms{.x = y, .score = score};
  terms.a = Tensor::from_host(y.context(), std::span<const double>(flow.of_x), n);
  terms.b = Tensor::from_host(y.context(), std::span<const double>(flow.of_score), n);
  return affine_step(terms).y;
}

DriftFn probability_flow(const SDE& sde, const ScoreFn& score) {
  return [&sde, &score](const Tensor& y, std::span<const ImageTime> times) {
    return flow_drift(flow_coefficients(sde, times), y, score(y.to(DType::f32), times));
  };
}

}  // namespace sgm
