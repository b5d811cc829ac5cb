#include "kernels/training.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace sgm {

void ResidualLoss::cpu(Context&) const {
  dispatch_float(net.dtype, "loss", [&]<class T>(T) {
    using A = Accumulator<T>;
    const double reduction = reduce_mean ? 1.0 / static_cast<double>(per) : 0.5;
    for (std::int64_t i = 0; i < n; ++i) {
      const double weight_i = weight.as<double>()[i], a_i = a.as<double>()[i], b_i = b.as<double>()[i];
      const double slope = 2.0 * reduction * weight_i * a_i / static_cast<double>(n);
      double sum = 0;
      for (std::int64_t j = i * per; j < (i + 1) * per; ++j) {
        const double residual = a_i * double(A(net.as<T>()[j])) + b_i * double(A(z.as<T>()[j]));
        sum += residual * residual;
        dnet.as<T>()[j] = T(A(slope * residual));
      }
      loss.as<double>()[i] = weight_i * reduction * sum;
    }
  });
}

void SumOfSquares::cpu(Context&) const {
  dispatch_float(x.dtype, "sum_of_squares", [&]<class T>(T) {
    using A = Accumulator<T>;
    constexpr std::int64_t kBlock = 1 << 14;
    const std::int64_t blocks = (n + kBlock - 1) / kBlock;
    std::vector<double> sums(static_cast<std::size_t>(blocks));
#pragma omp parallel for if (blocks > 1)
    for (std::int64_t k = 0; k < blocks; ++k) {
      double sum = 0;
      const T* in = x.as<T>();
#pragma omp simd reduction(+ : sum)
      for (std::int64_t i = k * kBlock; i < std::min(n, (k + 1) * kBlock); ++i) {
        const double value = double(A(in[i]));
        sum += value * value;
      }
      sums[k] = sum;
    }
    double total = 0;
    for (const double sum : sums) total += sum;
    y.as<double>()[0] = total;
  });
}

void AdamStep::cpu(Context&) const {
  dispatch_float(p.dtype, "adam", [&]<class T>(T) {
    using A = Accumulator<T>;
    T *pp = p.as<T>(), *pm = m.as<T>(), *pv = v.as<T>(), *pe = ema.as<T>();
    const T* pg = g.as<T>();
    const A scale = A(gradient_scale), decay = A(weight_decay), b1 = A(beta1), b2 = A(beta2);
    const A c1 = A(1.0 - beta1), c2 = A(1.0 - beta2), step = A(lr / bias1), root = A(1.0 / std::sqrt(bias2));
    const A epsilon = A(eps), follow = A(1.0 - ema_decay);
#pragma omp parallel for simd if (n > 1 << 14)
    for (std::int64_t i = 0; i < n; ++i) {
      const A old = A(pp[i]), grad = scale * A(pg[i]) + decay * old;
      const A mi = b1 * A(pm[i]) + c1 * grad, vi = b2 * A(pv[i]) + c2 * grad * grad;
      const A value = old - step * mi / (std::sqrt(vi) * root + epsilon);
      pm[i] = T(mi);
      pv[i] = T(vi);
      pp[i] = T(value);
      pe[i] = T(A(pe[i]) - follow * (A(pe[i]) - value));
    }
  });
}

}  // namespace sgm
