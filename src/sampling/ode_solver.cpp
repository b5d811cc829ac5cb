#include "sgm/sampling/ode_solver.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "sgm/core/error.h"

namespace sgm {
namespace {

// The Dormand-Prince pair: nodes, stages, and the fifth-order solution's weights and error.
constexpr int kStages = 7;
constexpr double kNodes[kStages] = {0, 1.0 / 5, 3.0 / 10, 4.0 / 5, 8.0 / 9, 1, 1};
constexpr double kWeights[kStages][kStages - 1] = {
    {},
    {1.0 / 5},
    {3.0 / 40, 9.0 / 40},
    {44.0 / 45, -56.0 / 15, 32.0 / 9},
    {19372.0 / 6561, -25360.0 / 2187, 64448.0 / 6561, -212.0 / 729},
    {9017.0 / 3168, -355.0 / 33, 46732.0 / 5247, 49.0 / 176, -5103.0 / 18656},
    {35.0 / 384, 0, 500.0 / 1113, 125.0 / 192, -2187.0 / 6784, 11.0 / 84},
};
constexpr double kError[kStages] = {-71.0 / 57600,    0,           71.0 / 16695, -71.0 / 1920,
                                    17253.0 / 339200, -22.0 / 525, 1.0 / 40};

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
  Integration(const DriftFn& drift, const Tensor& y0, double t0, double t1, const ODEOptions& options)
      : drift_(drift),
        options_(options),
        t0_(t0),
        t1_(t1),
        direction_(t1 >= t0 ? 1.0 : -1.0),
        rtol_(std::max(options.rtol, 100.0 * std::numeric_limits<double>::epsilon())),
        y_(y0) {
    const std::size_t n = static_cast<std::size_t>(y0.shape()[0]);
    for (std::size_t i = 0; i < n; ++i) tracks_.push_back({static_cast<int>(i), t0});
    solution_.y = y0;
    solution_.nfe.assign(n, 0);
    solution_.times.assign(n, {t0});
  }

  ODESolution run() {
    if (t0_ == t1_ || tracks_.empty()) return std::move(solution_);
    start();
    for (std::int64_t attempt = 0; !tracks_.empty(); ++attempt) {
      check(attempt < options_.max_attempts, "ode: image ", tracks_[0].image,
            " has come only to t = ", tracks_[0].t, " after ", attempt,
            " attempted steps; raise sampling.rtol and sampling.atol");
      step();
      if (options_.progress && !options_.progress(fraction()) && !tracks_.empty()) {
        keep_arrived(y_, std::vector<bool>(tracks_.size(), true));
        solution_.complete = false;
        break;
      }
    }
    return std::move(solution_);
  }

 private:
  /// The drift with every image at its t + node * (signed step).
  Tensor evaluate(const Tensor& y, const std::vector<double>& h, double node) {
    std::vector<ImageTime> times(tracks_.size());
    for (std::size_t i = 0; i < times.size(); ++i) {
      const double t = node == 1.0 ? tracks_[i].t_next : tracks_[i].t + node * h[i];
      times[i] = {{.t = t}, tracks_[i].image};
      ++solution_.nfe[static_cast<std::size_t>(tracks_[i].image)];
    }
    Tensor result = drift_(y, times);
    check(result.shape() == y.shape() && result.dtype() == DType::f64, "ode: drift must be f64 ", y.shape(),
          ", got ", result.dtype(), ' ', result.shape());
    return result;
  }

  /// rms over an image's elements (over those of the whole batch with shared steps) of the scaled sum of
  /// terms.
  std::vector<double> rms(std::span<const Term> terms, const Tensor& y_other) const {
    std::vector<double> norms = scaled_squared_norms(terms, y_, y_other, rtol_, options_.atol).to_host_f64();
    const double n = static_cast<double>(norms.size()), elements = static_cast<double>(y_.numel());
    if (options_.shared_steps) {
      double sum = 0.0;
      for (const double norm : norms) sum += norm;
      norms.assign(norms.size(), sum / n);
    }
    for (double& norm : norms) norm = std::sqrt(norm * n / elements);
    return norms;
  }

  Tensor per_image(const std::vector<double>& values) const {
    return Tensor::from_host(y_.context(), std::span<const double>(values),
                             {static_cast<std::int64_t>(values.size())});
  }

  /// First evaluation and first step sizes.
  void start() {
    const double span = std::abs(t1_ - t0_);
    std::vector<double> h(tracks_.size(), 0.0);
    k_[0] = evaluate(y_, h, 0.0);
    const std::vector<double> d0 = rms(std::array{Term{1.0, &y_}}, y_);
    const std::vector<double> d1 = rms(std::array{Term{1.0, &k_[0]}}, y_);
    for (std::size_t i = 0; i < h.size(); ++i) {
      check(std::isfinite(d0[i]) && std::isfinite(d1[i]), "ode: state or drift of image ", i,
            " is not finite at t = ", t0_);
      h[i] = direction_ * std::min(span, d0[i] < 1e-5 || d1[i] < 1e-5 ? 1e-6 : 0.01 * d0[i] / d1[i]);
      tracks_[i].t_next = t0_ + h[i];
    }
    const Tensor y1 = linear_combination(y_, per_image(h), std::array{Term{1.0, &k_[0]}});
    const Tensor f1 = evaluate(y1, h, 1.0);
    const std::vector<double> d2 = rms(std::array{Term{1.0, &f1}, Term{-1.0, &k_[0]}}, y_);
    for (std::size_t i = 0; i < h.size(); ++i) {
      const double h0 = std::abs(h[i]), curvature = d2[i] / h0;
      const double h1 = d1[i] <= 1e-15 && curvature <= 1e-15
                            ? std::max(1e-6, 1e-3 * h0)
                            : std::pow(0.01 / std::max(d1[i], curvature), 0.2);
      tracks_[i].h = std::min({100.0 * h0, h1, span});
    }
  }

  /// Fixes the ends of the next attempts; returns their signed lengths.
  std::vector<double> plan() {
    std::vector<double> h;
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

  /// One attempt of every image that has not arrived.
  void step() {
    const std::vector<double> h = plan();
    const Tensor h_tensor = per_image(h);
    Tensor y_new;
    for (int s = 1; s < kStages; ++s) {
      std::vector<Term> terms;
      for (int j = 0; j < s; ++j) terms.push_back({kWeights[s][j], &k_[j]});
      y_new = linear_combination(y_, h_tensor, terms);
      k_[s] = evaluate(y_new, h, kNodes[s]);
    }
    std::vector<Term> terms;
    for (int j = 0; j < kStages; ++j) terms.push_back({kError[j], &k_[j]});
    std::vector<double> error = rms(terms, y_new);
    for (std::size_t i = 0; i < error.size(); ++i) error[i] *= std::abs(h[i]);
    advance(y_new, decide(error));
  }

  /// Accepts or rejects every attempt and chooses the next step sizes.
  std::vector<bool> decide(const std::vector<double>& error) {
    std::vector<bool> accepted(tracks_.size());
    for (std::size_t i = 0; i < tracks_.size(); ++i) {
      Track& track = tracks_[i];
      accepted[i] = error[i] < 1.0;                          // not where it is NaN
      const double factor = 0.9 * std::pow(error[i], -0.2);  // infinite without error
      if (accepted[i]) {
        track.h *= std::min(track.rejected ? 1.0 : 10.0, factor);
        track.t = track.t_next;
        solution_.times[static_cast<std::size_t>(track.image)].push_back(track.t);
      } else {
        track.h *= factor > 0.2 ? factor : 0.2;
      }
      track.rejected = !accepted[i];
    }
    return accepted;
  }

  /// Moves on to the accepted states and drops the images that have arrived.
  void advance(const Tensor& y_new, const std::vector<bool>& accepted) {
    const std::int64_t m = static_cast<std::int64_t>(tracks_.size());
    std::vector<bool> arrived(tracks_.size());
    std::vector<std::int64_t>
        rows;  // of those still on their way: in the old states, or m further in the new ones
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
    if (!none_arrived) keep_arrived(y_new, arrived);
    tracks_ = std::move(rest);
    if (tracks_.empty()) return;
    const bool whole = none_arrived && all_accepted;
    y_ = whole ? y_new : gather_images(y_, y_new, rows);
    k_[0] = whole ? k_[kStages - 1] : gather_images(k_[0], k_[kStages - 1], rows);
  }

  /// Copies the chosen images of the current batch into the solution.
  void keep_arrived(const Tensor& y, const std::vector<bool>& chosen) {
    const std::int64_t n = solution_.y.shape()[0];
    std::vector<std::int64_t> rows(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<std::int64_t>(i);
    for (std::size_t i = 0; i < chosen.size(); ++i)
      if (chosen[i]) rows[static_cast<std::size_t>(tracks_[i].image)] = n + static_cast<std::int64_t>(i);
    solution_.y = gather_images(solution_.y, y, rows);
  }

  /// Of the way that the last image has come.
  double fraction() const {
    double least = 1.0;
    for (const Track& track : tracks_) least = std::min(least, (track.t - t0_) / (t1_ - t0_));
    return least;
  }

  const DriftFn& drift_;
  const ODEOptions& options_;
  const double t0_, t1_, direction_, rtol_;
  std::vector<Track> tracks_;  // of the images on their way, in the order of y_
  Tensor y_;
  std::array<Tensor, kStages> k_;  // drifts at the stages; the last becomes the next step's first
  ODESolution solution_;
};

}  // namespace

ODESolution integrate(const DriftFn& drift, const Tensor& y0, double t0, double t1,
                      const ODEOptions& options) {
  check(y0.defined() && y0.dtype() == DType::f64 && y0.shape().rank() >= 1,
        "ode: the state must be an f64 batch [N, ...], got ", y0.dtype(), ' ', y0.shape());
  check(std::isfinite(t0) && std::isfinite(t1), "ode: times must be finite, got ", t0, " and ", t1);
  check(options.rtol >= 0 && options.atol >= 0 && options.rtol + options.atol > 0 && options.rtol < 1 &&
            options.atol < 1e9,
        "ode: sampling.rtol and sampling.atol must not be negative nor both zero, got ", options.rtol,
        " and ", options.atol);
  return Integration(drift, y0, t0, t1, options).run();
}

DriftFn probability_flow(const SDE& sde, const ScoreFn& score) {
  return [&sde, &score](const Tensor& y, std::span<const ImageTime> times) {
    std::vector<double> drift, minus_half_variance;
    for (const ImageTime& time : times) {
      const double g = sde.diffusion(time.t);
      drift.push_back(sde.drift(time.t));
      minus_half_variance.push_back(-0.5 * g * g);
    }
    const Shape n{static_cast<std::int64_t>(times.size())};
    AffineTerms terms{.x = y, .score = score(y.to(DType::f32), times)};
    terms.a = Tensor::from_host(y.context(), std::span<const double>(drift), n);
    terms.b = Tensor::from_host(y.context(), std::span<const double>(minus_half_variance), n);
    return affine_step(terms).y;
  };
}

}  // namespace sgm
