#include "backend/cpu/unfold_conv.h"

#include <omp.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "backend/cpu/bf16_panels.h"
#include "backend/cpu/pixel_sums.h"
#include "backend/scratch.h"

namespace sgm::unfolded {
namespace {

using namespace bf16_panels;
using winograd::Lanes, winograd::load, winograd::store;

/// Into how many parts threads must cut the rest of the work, so that all of them get as much.
std::int64_t parts_for(std::int64_t panels) {
  const std::int64_t threads = omp_get_max_threads();
  return threads / std::gcd(panels, threads);
}

/// A matrix whose rows are the outputs' pixels: words of two channels each.
struct Rows {
  const std::uint32_t* words;
  std::int64_t length;  // 0: none
};

/// In which order a matrix has the outputs of a filter. As they lie in memory; or of 3x3 filters row by row
/// of all images: for the topmost pixels the first row of taps lies outside of the image, and need not be
/// multiplied.
class Order {
 public:
  explicit Order(const ConvShape& s) : s_(s), row_(s.r > 1 ? s.n * s.ow : s.n * s.oh * s.ow) {}

  /// Which pixel of the tensor the matrix has at `place`.
  std::int64_t pixel(std::int64_t place) const {
    const std::int64_t y = place / row_, image = place % row_ / s_.ow, x = place % row_ % s_.ow;
    return s_.r > 1 ? (image * s_.oh + y) * s_.ow + x : place;
  }
  /// Pixels of a kind, and how many of those there are.
  std::int64_t row() const { return row_; }
  std::int64_t rows() const { return s_.n * s_.oh * s_.ow / row_; }
  /// The rows of taps that lie on the image for row y of the pixels.
  std::int64_t first_tap(std::int64_t y) const { return std::clamp<std::int64_t>(s_.pad_begin - y, 0, s_.r); }
  std::int64_t last_tap(std::int64_t y) const {
    return std::clamp<std::int64_t>(s_.h + s_.pad_begin - y, first_tap(y), s_.r);
  }

 private:
  ConvShape s_;
  std::int64_t row_;
};

/// Copies what lies under the filter into rows [r, s, c], in order of memory or row by row of all images.
void unfold(const ConvShape& s, bool by_rows, const bfloat16* image, bfloat16* rows) {
  const std::int64_t row_of_y = by_rows ? s.n : 1, row_of_image = by_rows ? 1 : s.oh;
#pragma omp parallel for collapse(3) schedule(static)
  for (std::int64_t n = 0; n < s.n; ++n)
    for (std::int64_t oy = 0; oy < s.oh; ++oy)
      for (std::int64_t ox = 0; ox < s.ow; ++ox)
        for (std::int64_t i = 0; i < s.r * s.s; ++i) {
          const std::int64_t y = oy + i / s.s - s.pad_begin, x = ox + i % s.s - s.pad_begin;
          bfloat16* const to =
              rows + (((oy * row_of_y + n * row_of_image) * s.ow + ox) * s.r * s.s + i) * s.c;
          if (y >= 0 && y < s.h && x >= 0 && x < s.w)
            std::copy_n(image + ((n * s.h + y) * s.w + x) * s.c, s.c, to);
          else
            std::fill_n(to, s.c, bfloat16{});
        }
}

/// Rows of the matrix that are multiplied with the same words of a panel: those of some rows of taps.
struct Group {
  std::int64_t first, count, first_tap, last_tap;
};

std::vector<Group> groups_of(const ConvShape& s) {
  constexpr std::int64_t kGroup = 4 * TileProduct::kRows;  // that stay in a thread's cache
  const Order order(s);
  std::vector<Group> groups;
  for (std::int64_t y = 0; y < order.rows(); ++y)
    for (std::int64_t i = 0; i < order.row(); i += kGroup)
      groups.push_back(
          {y * order.row() + i, std::min(kGroup, order.row() - i), order.first_tap(y), order.last_tap(y)});
  return groups;
}

/// Rows times panels of weights: pack(panel, words) makes one, write(pixel, channel, sums of sixteen) takes
/// what comes out. The matrices' rows hold [r, s, c] of `s`.
template <class Pack, class Write>
void multiply_rows(const ConvShape& s, const std::vector<Rows>& matrices, std::int64_t columns,
                   Context& context, Pack&& pack, Write&& write) {
  std::int64_t length = 0, most = 0;
  for (const Rows& rows : matrices) length += rows.length;
  const std::vector<Group> groups = groups_of(s);
  for (const Group& group : groups) most = std::max(most, group.count);
  const auto count = static_cast<std::int64_t>(groups.size());
  const std::int64_t panels = columns / kColumns, parts = parts_for(panels);
  const std::int64_t own_size = (length + most) * kColumns;
  const Scratch memory(context, bytes(own_size * omp_get_max_threads()));
  if (context.is_dry()) return;
  const Order order(s);
#pragma omp parallel
  {
    std::uint32_t* const weights = memory.as<std::uint32_t>() + omp_get_thread_num() * own_size;
    float* const sums = reinterpret_cast<float*>(weights + length * kColumns);
    std::int64_t packed = -1;  // the panel that `weights` hold
#pragma omp for collapse(2) schedule(static)
    for (std::int64_t panel = 0; panel < panels; ++panel)
      for (std::int64_t part = 0; part < parts; ++part)
        for (std::int64_t i = count * part / parts; i < count * (part + 1) / parts; ++i) {
          if (packed != panel) pack(packed = panel, weights);
          const Group& group = groups[static_cast<std::size_t>(i)];
          const std::uint32_t* b = weights;
          for (const Rows& rows : matrices) {
            if (rows.length == 0) continue;
            const std::int64_t skipped = rows.length * group.first_tap / s.r,
                               words = rows.length * group.last_tap / s.r - skipped;
            multiply_bfloats({rows.words + group.first * rows.length + skipped, rows.length, 1,
                              b + skipped * kColumns, sums, kColumns, nullptr, nullptr, group.count, words,
                              kColumns, TileProduct::kRows * rows.length, b != weights});
            b += rows.length * kColumns;
          }
          for (std::int64_t row = 0; row < group.count; ++row)
            for (std::int64_t c = 0, pixel = order.pixel(group.first + row); c < kColumns; c += kLanes)
              write(pixel, panel * kColumns + c, load(sums + row * kColumns + c));
        }
  }
}

const std::uint32_t* words_of(const ConstBuffer& buffer) {
  return static_cast<const std::uint32_t*>(buffer.data);
}

/// The image as rows: where it lies, or as a copy in `memory`.
const std::uint32_t* rows_of(const ConvShape& s, bool by_rows, const ConstBuffer& image,
                             const Scratch& memory, Context& context) {
  if (!memory.data()) return words_of(image);
  if (!context.is_dry()) unfold(s, by_rows, image.as<bfloat16>(), memory.as<bfloat16>());
  return memory.as<std::uint32_t>();
}

/// Words of a row's copy; none of a 1x1 filter.
std::int64_t copied(const ConvShape& s) { return s.r * s.s > 1 ? s.r * s.s * s.c / 2 : 0; }

/// Rows [begin, end) of 32 columns of the gradient.
void write_weights(const Conv2dGradWeight& op, std::int64_t begin, std::int64_t end, std::int64_t column,
                   const float* sums) {
  const std::int64_t length = op.shape.r * op.shape.s * op.shape.c;
  const auto scale = static_cast<float>(op.scale);
  for (std::int64_t k = begin; k < end; ++k, sums += kColumns)
    for (std::int64_t c = 0; c < kColumns; c += kLanes)
      store(op.dweight.as<bfloat16>() + k * length + column + c, scale * load(sums + c));
}

}  // namespace

bool suits(const ConvShape& s, DType dtype) {
  if (dtype != DType::bf16 || !bfloats_are_fast() || s.stride != 1 || s.dilation != 1) return false;
  if (s.c % kColumns || s.c2 % kColumns || s.k % kColumns) return false;
  if (s.c / kColumns * (s.k / kColumns) < omp_get_max_threads()) return false;  // threads share out weights
  if (s.r == 1 && s.s == 1) return s.pad_begin == 0 && s.pad_end == 0;
  constexpr std::int64_t kPixels = 128;  // more of them repay Winograd's transforms of the filters
  return s.r == 3 && s.s == 3 && !s.c2 && s.n * s.oh * s.ow <= kPixels;
}

void convolve(const Conv2d& op, Context& context) {
  const ConvShape& s = op.shape;
  const std::int64_t length = s.r * s.s * s.c;
  const Scratch copy(context, bytes(s.n * s.oh * s.ow * copied(s)));
  const Rows one{rows_of(s, true, op.x, copy, context), (length - s.c2) / 2}, two{words_of(op.x2), s.c2 / 2};
  const float* bias = op.bias.as<float>();
  const auto scale = static_cast<float>(op.scale);
  const auto pack = [&](std::int64_t panel, std::uint32_t* words) {
    pack_rows(op.weight.as<float>() + panel * kColumns * length, length, length, words);
  };
  const auto write = [&]<class U>(U* y) {
    const U* residual = op.residual.as<U>();
    multiply_rows(s, {one, two}, s.k, context, pack,
                  [=, k = s.k](std::int64_t pixel, std::int64_t channel, Lanes sum) {
                    const std::int64_t i = pixel * k + channel;
                    if (bias) sum += load(bias + channel);
                    if (residual) sum += load(residual + i);
                    store(y + i, scale * sum);
                  });
  };
  if (op.y.dtype == DType::bf16)
    write(op.y.as<bfloat16>());
  else
    write(op.y.as<float>());
}

void convolve_grad_input(const Conv2dGradInput& op, Context& context) {
  const ConvShape& s = op.shape;
  // The gradient is a convolution of dy with the rotated filter, channels exchanged.
  const ConvShape back{
      s.n, s.oh, s.ow, s.k, s.c, s.r, s.s, s.h, s.w, 1, int(s.r) - 1 - s.pad_begin, int(s.r) - 1 - s.pad_end};
  const std::int64_t taps = s.r * s.s, c1 = s.c - s.c2;
  const Scratch copy(context, bytes(s.n * s.h * s.w * copied(back)));
  const Rows dy{rows_of(back, true, op.dy, copy, context), taps * s.k / 2};
  const auto scale = static_cast<float>(op.scale);
  const std::int64_t first = op.dx ? 0 : c1, last = op.dx2 ? s.c : c1;  // of the channels that are wanted
  const auto pack = [&](std::int64_t panel, std::uint32_t* words) {
    constexpr std::int64_t kAhead = 4;  // output channels
    const float* const from = op.weight.as<float>() + first + panel * kColumns;
    for (std::int64_t k = 0; k < s.k; k += 2)
      for (std::int64_t i = 0; i < taps; ++i) {
        const float* const even = from + (k * taps + i) * s.c;
        const float* const odd = even + taps * s.c;
        if (k + kAhead < s.k)
          for (const float* row : {even, odd}) fetch_columns(row + kAhead * taps * s.c);
        pack_pair(even, odd, words + ((taps - 1 - i) * s.k + k) / 2 * kColumns);
      }
  };
  bfloat16 *const dx = op.dx.as<bfloat16>(), *const dx2 = op.dx2.as<bfloat16>();
  multiply_rows(back, {dy}, last - first, context, pack,
                [=, c2 = s.c2](std::int64_t pixel, std::int64_t channel, const Lanes& sum) {
                  const std::int64_t c = first + channel;
                  store(c < c1 ? dx + pixel * c1 + c : dx2 + pixel * c2 + c - c1, scale * sum);
                });
}

void convolve_grad_weight(const Conv2dGradWeight& op, Context& context) {
  const ConvShape& s = op.shape;
  constexpr std::int64_t kChunk = 2048;  // words whose panel stays in a thread's cache
  constexpr std::int64_t kPacked = 64;   // words of dy that a thread packs at a time
  const std::int64_t pixels = s.n * s.oh * s.ow, words = (pixels + 1) / 2, columns = s.r * s.s * s.c;
  const std::int64_t panels = columns / kColumns, parts = parts_for(panels), rows = s.k / kColumns;
  const std::int64_t at_a_time = std::min(words, kChunk);
  const std::int64_t own_size = (at_a_time + (rows + parts - 1) / parts * kColumns) * kColumns;
  const Scratch memory(context, bytes(own_size * omp_get_max_threads()));
  const Scratch dy_memory(context, bytes(words * s.k)), copy(context, bytes(pixels * copied(s)));
  const auto* x = reinterpret_cast<const bfloat16*>(rows_of(s, false, op.x, copy, context));
  if (context.is_dry()) return;
  const std::int64_t columns1 = columns - s.c2;
  std::uint32_t* const dy = dy_memory.as<std::uint32_t>();
#pragma omp parallel
  {
#pragma omp for collapse(2) schedule(static)
    for (std::int64_t k = 0; k < rows; ++k)
      for (std::int64_t word = 0; word < words; word += kPacked)
        pack_columns(op.dy.as<bfloat16>() + k * kColumns, s.k, pixels, 2 * word,
                     std::min(pixels, 2 * (word + kPacked)), dy + (k * words + word) * kColumns);
    std::uint32_t* const own = memory.as<std::uint32_t>() + omp_get_thread_num() * own_size;
    float* const sums = reinterpret_cast<float*>(own + at_a_time * kColumns);
#pragma omp for collapse(2) schedule(static)
    for (std::int64_t panel = 0; panel < panels; ++panel)
      for (std::int64_t part = 0; part < parts; ++part) {
        const std::int64_t column = panel * kColumns;
        const std::int64_t begin = rows * part / parts, end = rows * (part + 1) / parts;
        for (std::int64_t word = 0; word < words && begin < end; word += at_a_time) {
          const std::int64_t count = std::min(at_a_time, words - word), p = 2 * word;
          if (column < columns1)
            pack_columns(x + column, columns1, pixels, p, std::min(pixels, p + 2 * count), own);
          else
            pack_columns(op.x2.as<bfloat16>() + column - columns1, s.c2, pixels, p,
                         std::min(pixels, p + 2 * count), own);
          for (std::int64_t k = begin; k < end; ++k)
            multiply_bfloats({dy + (k * words + word) * kColumns, 1, kColumns, own,
                              sums + (k - begin) * kColumns * kColumns, kColumns, nullptr, nullptr, kColumns,
                              count, kColumns, 0, word > 0});
        }
        write_weights(op, begin * kColumns, end * kColumns, column, sums);
      }
  }
  if (op.dbias) sum_pixels<bfloat16>(op);
}

}  // namespace sgm::unfolded
