// Attention as its formulas stand. Networks on a CPU make of it products of
// matrices (src/autograd/ops_attention.cpp); this is what GPUs are compared with.

#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace sgm {
namespace {

/// One image's tokens, `ld` elements apart.
template <class T>
struct Tokens {
  T* data;
  std::int64_t ld;
  T& at(std::int64_t token, std::int64_t channel) const { return data[token * ld + channel]; }
};

template <class A, class T, class U>
A dot(const Tokens<T>& a, std::int64_t i, const Tokens<U>& b, std::int64_t j, std::int64_t c) {
  A sum = 0;
  for (std::int64_t k = 0; k < c; ++k) sum += A(a.at(i, k)) * A(b.at(j, k));
  return sum;
}

/// y row += factor x row.
template <class A, class T>
void add_to(std::vector<A>& sums, std::int64_t row, A factor, const Tokens<T>& x, std::int64_t i,
            std::int64_t c) {
  for (std::int64_t k = 0; k < c; ++k) sums[static_cast<std::size_t>(row * c + k)] += factor * A(x.at(i, k));
}

template <class T>
void forward(const Attention& op) {
  using A = Accumulator<T>;
  const std::int64_t t = op.t, c = op.c;
#pragma omp parallel for
  for (std::int64_t image = 0; image < op.n; ++image) {
    const T* first = op.qkv.as<T>() + image * t * 3 * c;
    const Tokens<const T> q{first, 3 * c}, k{first + c, 3 * c}, v{first + 2 * c, 3 * c};
    std::vector<A> score(static_cast<std::size_t>(t)), mixed;
    for (std::int64_t i = 0; i < t; ++i) {
      A largest = -INFINITY, sum = 0;
      for (std::int64_t j = 0; j < t; ++j) {
        score[j] = A(op.scale) * dot<A>(q, i, k, j, c);
        largest = std::max(largest, score[j]);
      }
      for (A& value : score) sum += value = std::exp(value - largest);
      mixed.assign(static_cast<std::size_t>(c), A(0));
      for (std::int64_t j = 0; j < t; ++j) add_to(mixed, 0, score[j] / sum, v, j, c);
      std::transform(mixed.begin(), mixed.end(), op.y.as<T>() + (image * t + i) * c,
                     [](A value) { return T(value); });
      op.lse.as<A>()[image * t + i] = largest + std::log(sum);
    }
  }
}

template <class T>
void backward(const AttentionGrad& op) {
  using A = Accumulator<T>;
  const std::int64_t t = op.t, c = op.c;
  const A scale = A(op.scale);
  std::vector<A> sums(static_cast<std::size_t>(3 * c));
  for (std::int64_t image = 0; image < op.n; ++image) {
    const T* first = op.qkv.as<T>() + image * t * 3 * c;
    const Tokens<const T> q{first, 3 * c}, k{first + c, 3 * c}, v{first + 2 * c, 3 * c},
        y{op.y.as<T>() + image * t * c, c}, dy{op.dy.as<T>() + image * t * c, c};
    std::vector<A> dq(static_cast<std::size_t>(t * c)), dk(dq.size()), dv(dq.size());
    for (std::int64_t i = 0; i < t; ++i) {
      const A mean = dot<A>(y, i, dy, i, c), lse = op.lse.as<A>()[image * t + i];
      for (std::int64_t j = 0; j < t; ++j) {
        const A p = std::exp(scale * dot<A>(q, i, k, j, c) - lse), ds = p * (dot<A>(dy, i, v, j, c) - mean);
        add_to(dq, i, scale * ds, k, j, c);
        add_to(dk, j, scale * ds, q, i, c);
        add_to(dv, j, p, dy, i, c);
      }
    }
    int part = 0;
    for (const std::vector<A>* grad : {&dq, &dk, &dv}) {
      for (std::int64_t i = 0; i < t * c; ++i) {
        const A value = (*grad)[static_cast<std::size_t>(i)];
        op.dqkv.as<T>()[(image * t + i / c) * 3 * c + part * c + i % c] = T(value);
        sums[static_cast<std::size_t>(part * c + i % c)] += value;
      }
      ++part;
    }
  }
  if (op.sums) std::copy(sums.begin(), sums.end(), op.sums.as<A>());
}

}  // namespace

void Attention::cpu(Context&) const {
  dispatch_float(qkv.dtype, "attention", [this]<class T>(T) { forward<T>(*this); });
}

void AttentionGrad::cpu(Context&) const {
  dispatch_float(qkv.dtype, "attention", [this]<class T>(T) { backward<T>(*this); });
}

}  // namespace sgm
