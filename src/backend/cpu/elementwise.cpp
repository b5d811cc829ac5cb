#include "kernels/elementwise.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "backend/cpu/assign.h"
#include "backend/cpu/parallel.h"

namespace sgm {
namespace {

template <class T>
void scaled_sum(const T* a, const T* b, T* y, std::int64_t n, Accumulator<T> alpha, Accumulator<T> beta) {
  using A = Accumulator<T>;
  if (b) {
#pragma omp parallel for simd if (n > kParallelFrom)
    for (std::int64_t i = 0; i < n; ++i) assign(y[i], alpha * A(a[i]) + beta * A(b[i]));
  } else {
#pragma omp parallel for simd if (n > kParallelFrom)
    for (std::int64_t i = 0; i < n; ++i) assign(y[i], alpha * A(a[i]));
  }
}

}  // namespace

void Activate::cpu(Context&) const {
  dispatch_float(x.dtype, "activate", [&]<class T>(T) {
    dispatch_activation(activation, [&]<Activation A>() {
      const T* in = x.as<T>();
      T* out = y.as<T>();
#pragma omp parallel for simd if (n > kParallelFrom)
      for (std::int64_t i = 0; i < n; ++i) assign(out[i], activate<A>(Accumulator<T>(in[i])));
    });
  });
}

void ActivateGrad::cpu(Context&) const {
  dispatch_float(x.dtype, "activate", [&]<class T>(T) {
    dispatch_activation(activation, [&]<Activation A>() {
      using Acc = Accumulator<T>;
      const T *in = x.as<T>(), *grad = dy.as<T>();
      T* out = dx.as<T>();
#pragma omp parallel for simd if (n > kParallelFrom)
      for (std::int64_t i = 0; i < n; ++i) assign(out[i], Acc(grad[i]) * activate_grad<A>(Acc(in[i])));
    });
  });
}

void AddScaled::cpu(Context&) const {
  dispatch_float(y.dtype, "add", [&]<class T>(T) {
    scaled_sum(a.as<T>(), b.as<T>(), y.as<T>(), n, Accumulator<T>(alpha), Accumulator<T>(beta));
  });
}

void ScaleRows::cpu(Context&) const {
  dispatch_float(x.dtype, "scale_rows", [&]<class T>(T) {
    using A = Accumulator<T>;
    const T* in = x.as<T>();
    T* out = y.as<T>();
#pragma omp parallel for if (rows * cols > kParallelFrom)
    for (std::int64_t r = 0; r < rows; ++r) {
      const A s = A(factor * (scale ? scale.as<double>()[r] : 1.0)), t = A(shift);
#pragma omp simd
      for (std::int64_t i = r * cols; i < (r + 1) * cols; ++i) assign(out[i], s * A(in[i]) + t);
    }
  });
}

void AddBias::cpu(Context&) const {
  dispatch_float(x.dtype, "add_bias", [&]<class T>(T) {
    using A = Accumulator<T>;
    const A* b = bias.as<A>();
#pragma omp parallel for if (rows * cols > kParallelFrom)
    for (std::int64_t r = 0; r < rows; ++r) {
      const T* in = x.as<T>() + r * cols;
      T* out = y.as<T>() + r * cols;
#pragma omp simd
      for (std::int64_t c = 0; c < cols; ++c) assign(out[c], A(in[c]) + b[c]);
    }
  });
}

void ConcatChannels::cpu(Context&) const {
  const std::size_t size = size_of(y.dtype), a_bytes = ca * size, b_bytes = cb * size;
  const char *pa = a.as<char>(), *pb = b.as<char>();
  char* out = y.as<char>();
#pragma omp parallel for if (rows * (ca + cb) > kParallelFrom)
  for (std::int64_t r = 0; r < rows; ++r) {
    std::memcpy(out + r * (a_bytes + b_bytes), pa + r * a_bytes, a_bytes);
    std::memcpy(out + r * (a_bytes + b_bytes) + a_bytes, pb + r * b_bytes, b_bytes);
  }
}

void SplitChannels::cpu(Context&) const {
  const std::size_t size = size_of(y.dtype), a_bytes = ca * size, b_bytes = cb * size;
  const char* in = y.as<char>();
#pragma omp parallel for if (rows * (ca + cb) > kParallelFrom)
  for (std::int64_t r = 0; r < rows; ++r) {
    if (a) std::memcpy(a.as<char>() + r * a_bytes, in + r * (a_bytes + b_bytes), a_bytes);
    if (b) std::memcpy(b.as<char>() + r * b_bytes, in + r * (a_bytes + b_bytes) + a_bytes, b_bytes);
  }
}

void SumRows::cpu(Context&) const {
  dispatch_float(x.dtype, "sum_rows", [&]<class T>(T) {
    using A = Accumulator<T>;
    const T* in = x.as<T>();
    std::vector<A> sums(static_cast<std::size_t>(cols));
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < cols; ++c) sums[c] += A(in[r * cols + c]);
    dispatch_float(y.dtype, "sum_rows", [&]<class U>(U) {
      std::transform(sums.begin(), sums.end(), y.as<U>(),
                     [&](A sum) { return U(Accumulator<U>(static_cast<A>(scale) * sum)); });
    });
  });
}

void Softmax::cpu(Context&) const {
  dispatch_float(x.dtype, "softmax", [&]<class T>(T) {
    dispatch_float(y.dtype, "softmax", [&]<class U>(U) {
      using A = Accumulator<T>;
#pragma omp parallel for if (rows * cols > kParallelFrom)
      for (std::int64_t r = 0; r < rows; ++r) {
        const T* in = x.as<T>() + r * cols;
        U* out = y.as<U>() + r * cols;
        A largest = A(in[0]);
        double sum = 0;  // rows may be long: f32 would lose digits
#pragma omp simd reduction(max : largest)
        for (std::int64_t i = 0; i < cols; ++i) largest = std::max(largest, A(in[i]));
        const A s = A(scale);
#pragma omp simd reduction(+ : sum)
        for (std::int64_t i = 0; i < cols; ++i) sum += double(exp_value(s * (A(in[i]) - largest)));
        const A inverse = A(1.0 / sum);
#pragma omp simd
        for (std::int64_t i = 0; i < cols; ++i)
          assign(out[i], Accumulator<U>(exp_value(s * (A(in[i]) - largest)) * inverse));
      }
    });
  });
}

void SoftmaxGrad::cpu(Context&) const {
  dispatch_float(y.dtype, "softmax", [&]<class T>(T) {
    dispatch_float(dy.dtype, "softmax", [&]<class U>(U) {
      using A = Accumulator<U>;
#pragma omp parallel for if (rows * cols > kParallelFrom)
      for (std::int64_t r = 0; r < rows; ++r) {
        const T* p = y.as<T>() + r * cols;
        const U* g = dy.as<U>() + r * cols;
        T* out = dx.as<T>() + r * cols;
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (std::int64_t i = 0; i < cols; ++i) sum += double(A(p[i]) * A(g[i]));
        const A s = A(scale), dot = A(sum);
#pragma omp simd
        for (std::int64_t i = 0; i < cols; ++i) assign(out[i], Accumulator<T>(s * A(p[i]) * (A(g[i]) - dot)));
      }
    });
  });
}

void FourierEmbedding::cpu(Context&) const {
  dispatch_float(y.dtype, "fourier_embedding", [&]<class T>(T) {
    using A = Accumulator<T>;
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j < half; ++j) {
        const A angle = A(std::log(u.as<double>()[i])) * A(w.as<T>()[j]) * A(2) * A(M_PI);
        y.as<T>()[i * 2 * half + j] = T(std::sin(angle));
        y.as<T>()[i * 2 * half + half + j] = T(std::cos(angle));
      }
  });
}

void PositionalEmbedding::cpu(Context&) const {
  dispatch_float(y.dtype, "positional_embedding", [&]<class T>(T) {
    using A = Accumulator<T>;
    const std::int64_t half = dim / 2;
    for (std::int64_t i = 0; i < n; ++i) {
      T* out = y.as<T>() + i * dim;
      for (std::int64_t j = 0; j < half; ++j) {
        const float w =
            std::exp(static_cast<float>(j) * -(std::log(10000.0f) / static_cast<float>(half - 1)));
        const A angle = A(static_cast<float>(t.as<double>()[i]) * w);
        out[j] = T(std::sin(angle));
        out[half + j] = T(std::cos(angle));
      }
      if (dim % 2) out[dim - 1] = T(A(0));
    }
  });
}

void InverseSigma::cpu(Context&) const {
  std::transform(label.as<double>(), label.as<double>() + n, scale.as<double>(),
                 [this](double value) { return of(value); });
}

}  // namespace sgm
