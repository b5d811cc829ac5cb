#pragma once
// How tests judge numbers: element by element, which finds one wrong border pixel, and as a whole, which
// finds a small bias everywhere. Every comparison is written so that NaN fails.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "sgm/autograd/var.h"
#include "sgm/core/random.h"
#include "sgm/tensor/tensor.h"

namespace sgm {

/// An array on the host.
struct Values {
  Shape shape;
  std::vector<double> data;
};

/// The largest relative error of one rounding.
constexpr double unit_roundoff(DType dtype) {
  return dtype == DType::f64 ? 0x1p-53 : dtype == DType::f32 ? 0x1p-24 : 0x1p-8;
}

inline double rounded(double value, DType dtype) {
  if (dtype == DType::f64) return value;
  const float single = static_cast<float>(value);
  return static_cast<double>(dtype == DType::f32 ? single : static_cast<float>(bfloat16(single)));
}

inline std::vector<double> rounded(std::vector<double> values, DType dtype) {
  for (double& value : values) value = rounded(value, dtype);
  return values;
}

// ---- comparing --------------------------------------------------------------------------------------------

struct Tolerance {
  double l2;                   // ||actual - expected|| <= l2 ||expected||
  double element = 10.0 * l2;  // |actual_i - expected_i| <= element max |expected|
  double floor = 0.0;          // least value of ||expected|| and max |expected|: where zero is expected
};

struct Comparison {
  bool passes = false;
  std::string text;  // the worst element, its index, both values; the normalised mean squared error
};

inline Comparison compare(std::span<const double> actual, std::span<const double> expected,
                          const Tolerance& tolerance) {
  std::ostringstream text;
  if (actual.size() != expected.size()) {
    text << actual.size() << " elements, expected " << expected.size();
    return {false, text.str()};
  }
  double largest = tolerance.floor, squares = 0.0, error_squares = 0.0, worst = -1.0;
  std::size_t where = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double error = std::abs(actual[i] - expected[i]);
    largest = std::max(largest, std::abs(expected[i]));
    squares += expected[i] * expected[i];
    error_squares += error * error;
    if (!(error <= worst) && !std::isnan(worst)) worst = error, where = i;
  }
  const double norm = std::max(std::sqrt(squares), tolerance.floor);
  // An infinite difference is never allowed, not even where infinity is expected.
  const bool no_element_off =
      expected.empty() || (std::isfinite(worst) && worst <= tolerance.element * largest);
  const bool close = std::sqrt(error_squares) <= tolerance.l2 * norm;
  if (!expected.empty())
    text << "worst element " << where << " of " << expected.size() << ": " << actual[where] << ", expected "
         << expected[where] << "; off by " << worst << ", allowed " << tolerance.element * largest
         << "; relative l2 error " << std::sqrt(error_squares) / norm << ", allowed " << tolerance.l2
         << "; normalised mean squared error " << error_squares / (norm * norm);
  return {no_element_off && close, text.str()};
}

inline void expect_close(std::span<const double> actual, std::span<const double> expected,
                         const Tolerance& tolerance, const std::string& what = "values") {
  const Comparison comparison = compare(actual, expected, tolerance);
  EXPECT_TRUE(comparison.passes) << what << ": " << comparison.text;
}

// ---- making -----------------------------------------------------------------------------------------------

/// mean + std z, z standard normal and representable in f32; every stream has its own numbers.
inline std::vector<double> random_values(std::int64_t n, std::uint32_t stream, double mean = 0.0,
                                         double std = 1.0) {
  std::vector<double> values(static_cast<std::size_t>(n));
  const NoiseKey key{0x5eed, Purpose::noise, stream};
  for (std::size_t i = 0; i < values.size(); ++i) {
    float z[4];
    normals_of(philox(key, 0, static_cast<std::uint32_t>(i / 4)), z);
    values[i] = rounded(mean + std * static_cast<double>(z[i % 4]), DType::f32);
  }
  return values;
}

inline Tensor tensor_of(Context& context, const std::vector<double>& values, const Shape& shape,
                        DType dtype) {
  return Tensor::from_host(context, std::span<const double>(values), shape, dtype);
}

/// The operand of a kernel op between canary bytes. The destructor fails the test if the canaries have
/// changed, or if an operand that was only to be read has.
class Guarded {
 public:
  /// An output; what the op does not write stays NaN.
  Guarded(Context& context, std::int64_t n, DType dtype)
      : context_(context), dtype_(dtype), n_(n), bytes_(2 * kGuard + size(), kCanary) {
    std::fill_n(bytes_.begin() + kGuard, size(), std::byte{0xff});
    upload();
  }
  /// An input; an op may also write to it when `written` is set.
  Guarded(Context& context, const std::vector<double>& values, DType dtype, bool written = false)
      : context_(context),
        dtype_(dtype),
        n_(static_cast<std::int64_t>(values.size())),
        read_only_(!written),
        bytes_(2 * kGuard + size(), kCanary) {
    for (std::size_t i = 0; i < values.size(); ++i) store(i, values[i]);
    upload();
  }
  ~Guarded() {
    try {
      expect_untouched();
      if (record && !read_only_) record->push_back(values());
    } catch (const Error& error) {
      ADD_FAILURE() << error.what();
    }
    context_.release(memory_, bytes_.size());
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  /// Where outputs are left when they go, for comparisons between devices; null: nowhere.
  static inline std::vector<std::vector<double>>* record = nullptr;

  Buffer buffer() const { return {memory_ + kGuard, dtype_}; }
  std::vector<double> values() const {
    std::vector<std::byte> host(size());
    context_.copy_to_host(host.data(), memory_ + kGuard, size());
    std::vector<double> result(static_cast<std::size_t>(n_));
    for (std::size_t i = 0; i < result.size(); ++i) result[i] = load(host.data() + i * size_of(dtype_));
    return result;
  }

 private:
  static constexpr std::size_t kGuard = 64;  // keeps the alignment that the allocator gives
  static constexpr std::byte kCanary{0xa5};

  std::size_t size() const { return static_cast<std::size_t>(n_) * size_of(dtype_); }
  void expect_untouched() const {
    std::vector<std::byte> now(bytes_.size());
    context_.copy_to_host(now.data(), memory_, now.size());
    const auto same = [&](std::size_t begin, std::size_t count) {
      return std::memcmp(now.data() + begin, bytes_.data() + begin, count) == 0;
    };
    EXPECT_TRUE(same(0, kGuard)) << "written before the " << n_ << ' ' << dtype_ << " elements";
    EXPECT_TRUE(same(kGuard + size(), kGuard)) << "written after the " << n_ << ' ' << dtype_ << " elements";
    EXPECT_TRUE(!read_only_ || same(kGuard, size())) << "an input has changed";
  }
  void upload() {
    memory_ = static_cast<std::byte*>(context_.allocate(bytes_.size()));
    context_.copy_from_host(memory_, bytes_.data(), bytes_.size());
  }
  template <class T>
  void put(std::size_t i, T value) {
    std::memcpy(bytes_.data() + kGuard + i * sizeof(T), &value, sizeof(T));
  }
  void store(std::size_t i, double value) {
    if (dtype_ == DType::f64) return put(i, value);
    if (dtype_ == DType::f32) return put(i, static_cast<float>(value));
    put(i, bfloat16(static_cast<float>(value)));
  }
  template <class T>
  static T get(const std::byte* from) {
    T value;
    std::memcpy(&value, from, sizeof(T));
    return value;
  }
  double load(const std::byte* from) const {
    if (dtype_ == DType::f64) return get<double>(from);
    if (dtype_ == DType::f32) return static_cast<double>(get<float>(from));
    return static_cast<double>(static_cast<float>(get<bfloat16>(from)));
  }

  Context& context_;
  DType dtype_;
  std::int64_t n_;
  bool read_only_ = false;
  std::vector<std::byte> bytes_;
  std::byte* memory_ = nullptr;
};

// ---- differentiating --------------------------------------------------------------------------------------

/// A function of several tensors on the tape.
using Function = std::function<Var(std::span<const Var>)>;

struct Evaluation {
  Values output;
  DType dtype = DType::f64;                // of the output
  std::vector<std::vector<double>> grads;  // of <cotangent, output>, one per input; empty without cotangent
};

/// f at `inputs`, each in its element type, on the tape when there is a cotangent.
inline Evaluation evaluate(Context& context, const Function& f, const std::vector<Values>& inputs,
                           std::span<const DType> types, const std::vector<double>* cotangent = nullptr) {
  std::vector<Var> leaves;
  for (std::size_t i = 0; i < inputs.size(); ++i)
    leaves.emplace_back(tensor_of(context, inputs[i].data, inputs[i].shape, types[i]), cotangent != nullptr);
  const Var y = f(leaves);
  Evaluation result{{y.shape(), y.value().to_host_f64()}, y.value().dtype(), {}};
  if (!cotangent) return result;
  y.backward(tensor_of(context, *cotangent, y.shape(), y.value().dtype()));
  for (const Var& leaf : leaves) {
    EXPECT_TRUE(leaf.grad().defined());
    // Beside bf16 the gradients of convolution weights are bf16.
    EXPECT_TRUE(leaf.grad().dtype() == leaf.value().dtype() || leaf.grad().dtype() == types[0]);
    result.grads.push_back(leaf.grad().to_host_f64());
  }
  return result;
}

inline double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// `inputs` with `factor` times `direction` added to one of them.
inline std::vector<Values> moved(std::vector<Values> inputs, std::size_t which, double factor,
                                 const std::vector<double>& direction) {
  for (std::size_t i = 0; i < direction.size(); ++i) inputs[which].data[i] += factor * direction[i];
  return inputs;
}

/// Gradients in f64 against central differences of <u, f> along random directions, for every input.
inline void expect_gradients(Context& context, const Function& f, const std::vector<Values>& inputs,
                             int directions = 3) {
  const std::vector<DType> types(inputs.size(), DType::f64);
  const Values y = evaluate(context, f, inputs, types).output;
  const std::vector<double> u = random_values(y.shape.numel(), 1000);
  const Evaluation at = evaluate(context, f, inputs, types, &u);
  const double h = 1e-5;  // truncation h^2 = 1e-10, rounding 1e-16 / h = 1e-11
  double magnitude = 0.0;
  for (std::size_t i = 0; i < u.size(); ++i) magnitude += std::abs(u[i] * y.data[i]);
  for (std::size_t which = 0; which < inputs.size(); ++which)
    for (int k = 0; k < directions; ++k) {
      const std::vector<double> d =
          random_values(inputs[which].shape.numel(), 1001 + static_cast<std::uint32_t>(k));
      const double above = dot(u, evaluate(context, f, moved(inputs, which, h, d), types).output.data);
      const double below = dot(u, evaluate(context, f, moved(inputs, which, -h, d), types).output.data);
      const double numeric = (above - below) / (2 * h), analytic = dot(at.grads[which], d);
      const double scale = std::sqrt(dot(at.grads[which], at.grads[which]));
      const double bound = 1e-7 * scale + 1e-10 * magnitude;
      EXPECT_TRUE(std::abs(numeric - analytic) <= bound)
          << "input " << which << ", direction " << k << ": gradient " << analytic << ", difference quotient "
          << numeric << ", allowed " << bound;
    }
}

/// For f affine in one input, f(x) = A x + b: <A x, u> = <x, gradient of <u, f>> up to rounding in f64.
inline void expect_adjoint(Context& context, const Function& f, const std::vector<Values>& inputs,
                           std::size_t which) {
  const std::vector<DType> types(inputs.size(), DType::f64);
  std::vector<Values> origin = inputs;
  std::fill(origin[which].data.begin(), origin[which].data.end(), 0.0);
  const Values y = evaluate(context, f, inputs, types).output;
  const Values offset = evaluate(context, f, origin, types).output;
  const std::vector<double> u = random_values(y.shape.numel(), 1000);
  const Evaluation at = evaluate(context, f, inputs, types, &u);
  double forward = 0.0, magnitude = 0.0;
  for (std::size_t i = 0; i < u.size(); ++i) {
    forward += (y.data[i] - offset.data[i]) * u[i];
    magnitude += (std::abs(y.data[i]) + std::abs(offset.data[i])) * std::abs(u[i]);
  }
  const double backward = dot(inputs[which].data, at.grads[which]);
  EXPECT_TRUE(std::abs(forward - backward) <= 1e-13 * magnitude)
      << "input " << which << ": <Ax, u> = " << forward << ", <x, A'u> = " << backward << ", allowed "
      << 1e-13 * magnitude;
}

}  // namespace sgm
