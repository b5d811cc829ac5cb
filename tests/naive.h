#pragma once
// The ops again, in double, as their definitions say and as slowly as that: what the fast ones must equal.

#include <cmath>
#include <vector>

#include "check.h"
#include "sgm/autograd/ops.h"

namespace sgm::naive {

inline double activate(Activation activation, double x) {
  switch (activation) {
    case Activation::none: return x;
    case Activation::swish: return x / (1.0 + std::exp(-x));
    case Activation::elu: return x > 0 ? x : std::expm1(x);
    case Activation::relu: return std::max(x, 0.0);
    case Activation::lrelu: return std::max(x, 0.2 * x);
  }
  return x;
}

inline double activate_grad(Activation activation, double x) {
  const double sigmoid = 1.0 / (1.0 + std::exp(-x));
  switch (activation) {
    case Activation::none: return 1.0;
    case Activation::swish: return sigmoid + x * sigmoid * (1.0 - sigmoid);
    case Activation::elu: return x > 0 ? 1.0 : std::exp(x);
    case Activation::relu: return x > 0 ? 1.0 : 0.0;
    case Activation::lrelu: return x > 0 ? 1.0 : 0.2;
  }
  return 1.0;
}

/// An [N, H, W, C] array that is zero outside.
class Image {
 public:
  explicit Image(const Values& values) : values_(values) {}
  double at(std::int64_t n, std::int64_t y, std::int64_t x, std::int64_t c) const {
    const Shape& s = values_.shape;
    if (y < 0 || y >= s[1] || x < 0 || x >= s[2]) return 0.0;
    return values_.data[static_cast<std::size_t>(((n * s[1] + y) * s[2] + x) * s[3] + c)];
  }

 private:
  const Values& values_;
};

/// Calls f(n, y, x, c) in memory order and keeps what it returns.
template <class F>
Values image_of(const Shape& shape, F&& f) {
  Values result{shape, {}};
  for (std::int64_t n = 0; n < shape[0]; ++n)
    for (std::int64_t y = 0; y < shape[1]; ++y)
      for (std::int64_t x = 0; x < shape[2]; ++x)
        for (std::int64_t c = 0; c < shape[3]; ++c) result.data.push_back(f(n, y, x, c));
  return result;
}

/// scale (conv(x, weight) + bias + residual); absent operands are null.
inline Values conv2d(const Values& x, const Values& weight, const Values* bias, const Values* residual,
                     const Conv2dParams& p, double scale) {
  const Image in(x), w(weight);
  const Shape &s = x.shape, &f = weight.shape;
  const auto size = [&](std::int64_t length, std::int64_t filter) {
    return (length + p.pad_begin + p.pad_end - (filter - 1) * p.dilation - 1) / p.stride + 1;
  };
  const Shape out{s[0], size(s[1], f[1]), size(s[2], f[2]), f[0]};
  std::size_t index = 0;
  return image_of(out, [&](std::int64_t n, std::int64_t y, std::int64_t q, std::int64_t k) {
    double sum = 0.0;
    for (std::int64_t c = 0; c < s[3]; ++c)
      for (std::int64_t i = 0; i < f[1]; ++i)
        for (std::int64_t j = 0; j < f[2]; ++j)
          sum += in.at(n, y * p.stride + i * p.dilation - p.pad_begin,
                       q * p.stride + j * p.dilation - p.pad_begin, c) *
                 w.at(k, i, j, c);
    if (bias) sum += bias->data[static_cast<std::size_t>(k)];
    if (residual) sum += residual->data[index];
    ++index;
    return scale * sum;
  });
}

/// Correlation with taps of the zero-inserted, padded image, one axis at a time, every down-th sample kept.
inline Values resample(const Values& x, const ResampleParams& p) {
  const auto along = [&p](const std::vector<double>& line) {
    std::vector<double> spread;
    for (const double value : line) {
      spread.push_back(value);
      spread.insert(spread.end(), static_cast<std::size_t>(p.up - 1), 0.0);
    }
    std::vector<double> padded;
    const auto size = static_cast<std::int64_t>(spread.size());
    for (std::int64_t i = -p.pad0; i < size + p.pad1; ++i)
      padded.push_back(i >= 0 && i < size ? spread[static_cast<std::size_t>(i)] : 0.0);
    std::vector<double> result;
    for (std::size_t i = 0; i + p.taps.size() <= padded.size(); i += static_cast<std::size_t>(p.down)) {
      result.push_back(0.0);
      for (std::size_t j = 0; j < p.taps.size(); ++j) result.back() += p.taps[j] * padded[i + j];
    }
    return result;
  };
  const Shape& s = x.shape;
  const Image in(x);
  std::vector<std::vector<std::vector<double>>> columns;  // of (n, w, c): along the height
  for (std::int64_t n = 0; n < s[0]; ++n)
    for (std::int64_t c = 0; c < s[3]; ++c) {
      std::vector<std::vector<double>> tall;
      for (std::int64_t w = 0; w < s[2]; ++w) {
        std::vector<double> column;
        for (std::int64_t h = 0; h < s[1]; ++h) column.push_back(in.at(n, h, w, c));
        tall.push_back(along(column));
      }
      std::vector<std::vector<double>> plane;
      for (std::size_t h = 0; h < tall[0].size(); ++h) {
        std::vector<double> row;
        for (const auto& column : tall) row.push_back(column[h]);
        plane.push_back(along(row));
      }
      columns.push_back(plane);
    }
  const Shape out{s[0], std::ssize(columns[0]), std::ssize(columns[0][0]), s[3]};
  return image_of(out, [&](std::int64_t n, std::int64_t y, std::int64_t w, std::int64_t c) {
    return columns[static_cast<std::size_t>(n * s[3] + c)][static_cast<std::size_t>(y)]
                  [static_cast<std::size_t>(w)];
  });
}

/// 1 / (1 - rate) for the elements of image n that dropout keeps, else 0: kept when the element's Philox word
/// is at least rate 2^32.
inline double keep_factor(double rate, const NoiseKey& key, std::int64_t n, std::int64_t element) {
  if (rate == 0.0) return 1.0;
  const PhiloxWords words =
      philox(key, static_cast<std::uint32_t>(n), static_cast<std::uint32_t>(element / 4));
  return static_cast<double>(words.word[element % 4]) >= rate * 4294967296.0 ? 1.0 / (1.0 - rate) : 0.0;
}

/// Means and 1 / sqrt(variance + eps) of x + shift, [n][group].
struct Moments {
  std::vector<double> mean, rstd;
};
inline Moments moments(const Values& x, const Values* shift, int groups, double eps) {
  const Image in(x);
  const Shape& s = x.shape;
  const std::int64_t per_group = s[3] / groups;
  Moments result;
  for (std::int64_t n = 0; n < s[0]; ++n)
    for (std::int64_t g = 0; g < groups; ++g) {
      std::vector<double> members;
      for (std::int64_t y = 0; y < s[1]; ++y)
        for (std::int64_t w = 0; w < s[2]; ++w)
          for (std::int64_t c = g * per_group; c < (g + 1) * per_group; ++c)
            members.push_back(in.at(n, y, w, c) +
                              (shift ? shift->data[static_cast<std::size_t>(n * s[3] + c)] : 0.0));
      long double mean = 0.0, variance = 0.0;  // more exact than the double that they judge
      for (const double value : members) mean += value;
      mean /= static_cast<long double>(members.size());
      for (const double value : members) variance += (value - mean) * (value - mean);
      variance /= static_cast<long double>(members.size());
      result.mean.push_back(static_cast<double>(mean));
      result.rstd.push_back(static_cast<double>(1.0 / std::sqrt(variance + eps)));
    }
  return result;
}

inline Values group_norm(const Values& x, const Values& gamma, const Values& beta, const Values* shift,
                         const GroupNormParams& p) {
  const Image in(x);
  const Shape& s = x.shape;
  const Moments m = moments(x, shift, p.groups, p.eps);
  const std::int64_t per_group = s[3] / p.groups;
  return image_of(s, [&](std::int64_t n, std::int64_t y, std::int64_t w, std::int64_t c) {
    const auto g = static_cast<std::size_t>(n * p.groups + c / per_group), i = static_cast<std::size_t>(c);
    const double added = shift ? shift->data[static_cast<std::size_t>(n * s[3] + c)] : 0.0;
    const double normal = (in.at(n, y, w, c) + added - m.mean[g]) * m.rstd[g];
    return keep_factor(p.dropout, p.dropout_key, n, (y * s[2] + w) * s[3] + c) *
           activate(p.activation, gamma.data[i] * normal + beta.data[i]);
  });
}

/// softmax(q k' / sqrt C) v over the pixels of each image of qkv [N, H, W, 3C].
inline Values attention(const Values& qkv) {
  const Shape& s = qkv.shape;
  const std::int64_t pixels = s[1] * s[2], c = s[3] / 3;
  const auto at = [&](std::int64_t n, std::int64_t pixel, std::int64_t channel) {
    return qkv.data[static_cast<std::size_t>((n * pixels + pixel) * s[3] + channel)];
  };
  Values y{{s[0], s[1], s[2], c}, {}};
  for (std::int64_t n = 0; n < s[0]; ++n)
    for (std::int64_t p = 0; p < pixels; ++p) {
      std::vector<double> weight(static_cast<std::size_t>(pixels));
      double total = 0.0;
      for (std::int64_t r = 0; r < pixels; ++r) {
        double product = 0.0;
        for (std::int64_t i = 0; i < c; ++i) product += at(n, p, i) * at(n, r, c + i);
        weight[static_cast<std::size_t>(r)] = std::exp(product / std::sqrt(static_cast<double>(c)));
        total += weight[static_cast<std::size_t>(r)];
      }
      for (std::int64_t i = 0; i < c; ++i) {
        double sum = 0.0;
        for (std::int64_t r = 0; r < pixels; ++r)
          sum += weight[static_cast<std::size_t>(r)] / total * at(n, r, 2 * c + i);
        y.data.push_back(sum);
      }
    }
  return y;
}

/// op(a) op(b) + bias with a [m, k], b [k, n] (or the transposes), bias null or [n].
inline Values matmul(const Values& a, bool trans_a, const Values& b, bool trans_b, const Values* bias) {
  const std::int64_t m = a.shape[trans_a ? 1 : 0], k = a.shape[trans_a ? 0 : 1], n = b.shape[trans_b ? 0 : 1];
  const auto at = [](const Values& v, std::int64_t row, std::int64_t column, bool trans) {
    return v.data[static_cast<std::size_t>(trans ? column * v.shape[1] + row : row * v.shape[1] + column)];
  };
  Values c{{m, n}, {}};
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = bias ? bias->data[static_cast<std::size_t>(j)] : 0.0;
      for (std::int64_t l = 0; l < k; ++l) sum += at(a, i, l, trans_a) * at(b, l, j, trans_b);
      c.data.push_back(sum);
    }
  return c;
}

/// (u - mean) / max(std, 1 / sqrt(H W C)) image by image, u = scale x + shift channel by channel.
inline Values standardise(const Values& x, const std::vector<double>& scale,
                          const std::vector<double>& shift) {
  Values y = x;
  const auto c = static_cast<std::size_t>(x.shape[3]);
  const std::size_t per = y.data.size() / static_cast<std::size_t>(x.shape[0]);
  for (std::size_t first = 0; first < y.data.size(); first += per) {
    double mean = 0.0, variance = 0.0;
    const std::span<double> image(y.data.data() + first, per);
    for (std::size_t i = 0; i < per; ++i) image[i] = scale[i % c] * image[i] + shift[i % c];
    for (const double u : image) mean += u / static_cast<double>(per);
    for (const double u : image) variance += (u - mean) * (u - mean) / static_cast<double>(per);
    for (double& u : image)
      u = (u - mean) / std::max(std::sqrt(variance), 1.0 / std::sqrt(static_cast<double>(per)));
  }
  return y;
}

/// [N, H, W, C] -> [N, C].
inline Values mean_pixels(const Values& x) {
  const std::int64_t n = x.shape[0], c = x.shape[3], pixels = x.shape[1] * x.shape[2];
  Values y{{n, c}, std::vector<double>(static_cast<std::size_t>(n * c))};
  for (std::int64_t i = 0; i < n * pixels * c; ++i)
    y.data[static_cast<std::size_t>(i / (pixels * c) * c + i % c)] +=
        x.data[static_cast<std::size_t>(i)] / static_cast<double>(pixels);
  return y;
}

/// -log softmax(x)[label] of every row.
inline Values cross_entropy(const Values& x, const std::vector<double>& labels) {
  const auto rows = static_cast<std::size_t>(x.shape[0]), cols = static_cast<std::size_t>(x.shape[1]);
  Values y{{x.shape[0]}, {}};
  for (std::size_t r = 0; r < rows; ++r) {
    double sum = 0.0;
    for (std::size_t k = 0; k < cols; ++k) sum += std::exp(x.data[r * cols + k]);
    y.data.push_back(std::log(sum) - x.data[r * cols + static_cast<std::size_t>(labels[r])]);
  }
  return y;
}

}  // namespace sgm::naive
