#include "kernels/training.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace sgm {

void ResidualLoss::cpu(Context&) const {
  dispatch_float(net.dtype, "loss", [&]<class T>(T) {
    using A = Accumulator<T>;
    const double reduction = reduce_mean ? 1.0 / static_cast<double>(per) : 0.5;
    double total = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      const double weight_i = weight.as<double>()[i], a_i = a.as<double>()[i], b_i = b.as<double>()[i];
      const double slope = 2.0 * reduction * weight_i * a_i / static_cast<double>(n);
      double sum = 0;
      float drawn[4] = {};
      for (std::int64_t e = 0; e < per; ++e) {
        const std::int64_t j = i * per + e;
        if (!z.given && e % 4 == 0)
          normals_of(philox(z.key, static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(e / 4)), drawn);
        const double noise = z.given ? double(A(z.given.as<T>()[j])) : drawn[e % 4];
        const double residual = a_i * double(A(net.as<T>()[j])) + b_i * noise;
        sum += residual * residual;
        dnet.as<T>()[j] = T(A(slope * residual));
      }
      loss.as<double>()[i] = weight_i * reduction * sum;
      total += loss.as<double>()[i];
    }
    *mean.as<double>() = total / static_cast<double>(n);
  });
}

namespace {

/// Calls body(chunk, entry, first, last) for every chunk of every tensor, in parallel.
template <class Body>
void for_each_chunk(const ParameterList& list, Body&& body) {
  std::vector<const ParameterList::Entry*> entry_of;
  for (std::int64_t i = 0; i < list.count; ++i) {
    const ParameterList::Entry& entry = list.entries[i];
    entry_of.insert(entry_of.end(), static_cast<std::size_t>(ParameterList::chunks_of(entry.n)), &entry);
  }
#pragma omp parallel for schedule(static) if (list.chunks > 1)
  for (std::int64_t k = 0; k < list.chunks; ++k) {
    const ParameterList::Entry& entry = *entry_of[static_cast<std::size_t>(k)];
    const std::int64_t first = (list.first_chunk + k - entry.first_chunk) * ParameterList::kChunk;
    body(list.first_chunk + k, entry, first, std::min(entry.n, first + ParameterList::kChunk));
  }
}

template <class T>
double sum_of_squares(const T* g, double scale, std::int64_t first, std::int64_t last) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = first; i < last; ++i) {
    const double value = scale * double(Accumulator<T>(g[i]));
    sum += value * value;
  }
  return sum;
}

/// P: of the parameter; G: of its gradient.
template <class P, class G>
void adam(const AdamUpdate& op, const ParameterList::Entry& entry, double clip, std::int64_t first,
          std::int64_t last) {
  P *p = entry.p.as<P>(), *m = entry.m.as<P>(), *v = entry.v.as<P>(), *ema = entry.ema.as<P>();
  const G* g = entry.g.as<G>();
  const AdamSchedule& now = *op.schedule;
  const P scale = P(clip * entry.g_scale), decay = P(op.weight_decay), b1 = P(op.beta1), b2 = P(op.beta2);
  const P c1 = P(1.0 - op.beta1), c2 = P(1.0 - op.beta2), step = P(now.lr / now.bias1);
  const P root = P(1.0 / std::sqrt(now.bias2)), epsilon = P(op.eps), follow = P(1.0 - now.ema_decay);
#pragma omp simd
  for (std::int64_t i = first; i < last; ++i) {
    const P old = p[i], grad = scale * P(g[i]) + decay * old;
    const P mi = b1 * m[i] + c1 * grad, vi = b2 * v[i] + c2 * grad * grad;
    const P value = old - step * mi / (std::sqrt(vi) * root + epsilon);
    m[i] = mi;
    v[i] = vi;
    p[i] = value;
    ema[i] -= follow * (ema[i] - value);
  }
  if (!entry.low) return;
#pragma omp simd
  for (std::int64_t i = first; i < last; ++i)
    entry.low.as<bfloat16>()[i] = bfloat16(static_cast<float>(P(entry.low_factor) * p[i]));
}

}  // namespace

void GradientNorm::cpu(Context&) const {
  double* const of_chunk = squares.as<double>();
  for_each_chunk(parameters, [&](std::int64_t chunk, const ParameterList::Entry& entry, std::int64_t first,
                                 std::int64_t last) {
    of_chunk[chunk] = 0;
    if (!entry.g) return;
    dispatch_float(entry.g.dtype, "gradient_norm", [&]<class T>(T) {
      of_chunk[chunk] = sum_of_squares(entry.g.as<T>(), entry.g_scale, first, last);
    });
  });
  if (!y) return;
  y.as<double>()[0] = std::accumulate(of_chunk, of_chunk + all, 0.0);
  if (sum) sum.as<double>()[0] += y.as<double>()[0];
}

void AdamUpdate::cpu(Context&) const {
  const double norm = std::sqrt(squared_norm.as<double>()[0]);
  if (!std::isfinite(norm)) return;
  const double clip = grad_clip < 0 ? 1.0 : std::min(1.0, grad_clip / (norm + 1e-6));
  for_each_chunk(parameters,
                 [&](std::int64_t, const ParameterList::Entry& entry, std::int64_t first, std::int64_t last) {
                   if (!entry.g) return;
                   if (entry.p.dtype == DType::f64)
                     adam<double, double>(*this, entry, clip, first, last);
                   else if (entry.g.dtype == DType::bf16)
                     adam<float, bfloat16>(*this, entry, clip, first, last);
                   else
                     adam<float, float>(*this, entry, clip, first, last);
                 });
}

}  // namespace sgm
