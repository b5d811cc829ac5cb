#include "kernels/score_matching.h"

#include <algorithm>
#include <vector>

#include "backend/cpu/parallel.h"

namespace sgm {
void DerivativeProduct::cpu(Context&) const {
  dispatch_float(x.dtype, "derivative_product", [&]<class T>(T) {
    f.dispatch([&]<Activation A, int Order>() {
      using Acc = Accumulator<T>;
      const T* in = x.as<T>();
      for (std::int64_t k = 0; k < copies; ++k) {
        const T* factor = v.as<T>() + k * n;
        T* out = y.as<T>() + k * n;
#pragma omp parallel for simd if (n > kParallelFrom)
        for (std::int64_t i = 0; i < n; ++i) out[i] = T(derivative<A, Order>(Acc(in[i])) * Acc(factor[i]));
      }
    });
  });
}

void DerivativeProductGrad::cpu(Context&) const {
  dispatch_float(x.dtype, "derivative_product", [&]<class T>(T) {
    f.dispatch([&]<Activation A, int Order>() {
      using Acc = Accumulator<T>;
      const T *in = x.as<T>(), *factor = v.as<T>(), *grad = dy.as<T>();
      T* out = dx.as<T>();
#pragma omp parallel for simd if (n * copies > kParallelFrom)
      for (std::int64_t i = 0; i < n; ++i) {
        Acc sum = 0;
        for (std::int64_t k = 0; k < copies; ++k) sum += Acc(factor[k * n + i]) * Acc(grad[k * n + i]);
        out[i] = T(derivative<A, Order>(Acc(in[i])) * sum);
      }
    });
  });
}

void RandomSigns::cpu(Context&) const {
  dispatch_float(y.dtype, "random_signs", [&]<class T>(T) {
#pragma omp parallel for if (n * per_image > kParallelFrom)
    for (std::int64_t i = 0; i < n; ++i) {
      T* out = y.as<T>() + i * per_image;
      for (std::int64_t e = 0; e < per_image; e += 4) {
        const PhiloxWords words =
            philox(key, static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(e / 4));
        for (std::int64_t j = 0; j < 4 && e + j < per_image; ++j)
          out[e + j] = T(Accumulator<T>(words.word[j] >> 31 ? 1 : -1));
      }
    }
  });
}

void DirectionalLoss::cpu(Context&) const {
  dispatch_float(net.dtype, "loss", [&]<class T>(T) {
    using Acc = Accumulator<T>;
    const double reduction = reduce_mean ? 1.0 / static_cast<double>(per) : 0.5;
    std::vector<double> gradient(static_cast<std::size_t>(per));  // of this image
    for (std::int64_t i = 0; i < n; ++i) {
      const double a_i = a.as<double>()[i], weight_i = weight.as<double>()[i];
      const double slope = 2.0 * reduction * weight_i * a_i / static_cast<double>(n);
      const T* output = net.as<T>() + i * per;
      const auto at = [&](std::int64_t j) { return double(Acc(output[j])); };
      std::fill(gradient.begin(), gradient.end(), 0.0);
      double sum = 0;
      for (std::int64_t k = 0; k < copies; ++k) {
        const std::int64_t row = (k * n + i) * per;
        const T *along = tangent.as<T>() + row, *direction = v.as<T>() + row;
        const auto v_at = [&](std::int64_t j) { return double(Acc(direction[j])); };
        double product = 0, derivative = 0, square = 0;
        for (std::int64_t j = 0; j < per; ++j) {
          product += v_at(j) * at(j);
          derivative += v_at(j) * double(Acc(along[j]));
          square += at(j) * at(j);
        }
        sum += a_i * a_i * (projected ? product * product : square) + 2.0 * a_i * derivative;
        for (std::int64_t j = 0; j < per; ++j) {
          dtangent.as<T>()[row + j] = T(Acc(slope * v_at(j)));
          gradient[static_cast<std::size_t>(j)] += slope * a_i * (projected ? product * v_at(j) : at(j));
        }
      }
      for (std::int64_t j = 0; j < per; ++j)
        dnet.as<T>()[i * per + j] = T(Acc(gradient[static_cast<std::size_t>(j)]));
      loss.as<double>()[i] = weight_i * reduction * sum;
    }
  });
}

}  // namespace sgm
