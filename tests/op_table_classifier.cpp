// Rows of the ops of classifiers.

#include "naive.h"
#include "op_table.h"

namespace sgm {
namespace {

std::string named(const char* op, const Shape& shape) {
  std::ostringstream text;
  text << op << ' ' << shape;
  return text.str();
}

/// The first of `values`, as many as there are images: batches of tests may be empty.
Tensor numbers_for(const Var& x, const std::vector<double>& values, std::int64_t count) {
  return tensor_of(x.value().context(), {values.begin(), values.begin() + count}, {count}, DType::f64);
}

OpRow standardise_row(const Shape& s, double std) {
  const std::vector<double> scale = random_values(s[3], 7, 1.0), shift = random_values(s[3], 8);
  return {.name = named("standardise", s),
          .op = "standardise",
          .inputs = {{.shape = s, .std = std}},
          .build =
              [=](Vars v) {
                return standardise(v[0], numbers_for(v[0], scale, s[3]), numbers_for(v[0], shift, s[3]));
              },
          .naive = [=](const Inputs& v) { return naive::standardise(v[0], scale, shift); },
          .affine = false};
}

OpRow mean_pixels_row(const Shape& s) {
  return {.name = named("mean_pixels", s),
          .op = "mean_pixels",
          .inputs = {{s}},
          .build = [](Vars v) { return mean_pixels(v[0]); },
          .naive = [](const Inputs& v) { return naive::mean_pixels(v[0]); }};
}

OpRow cross_entropy_row(const Shape& s) {
  std::vector<double> labels;
  for (std::int64_t n = 0; n < s[0]; ++n) labels.push_back(static_cast<double>(3 * n % s[1]));
  return {
      .name = named("cross_entropy", s),
      .op = "cross_entropy",
      .inputs = {{s}},
      .build = [=](Vars v) { return cross_entropy(v[0], numbers_for(v[0], labels, v[0].shape()[0])).loss; },
      .naive = [=](const Inputs& v) { return naive::cross_entropy(v[0], labels); },
      .affine = false,
      .bf16 = false};
}

}  // namespace

void add_classifier_ops(std::vector<OpRow>& rows) {
  rows.push_back(standardise_row({1, 1, 1, 3}, 1.0));
  rows.push_back(standardise_row({2, 5, 7, 3}, 1.0));
  rows.push_back(standardise_row({3, 7, 7, 1}, 0.02));  // below 1 / sqrt(H W C)
  for (const Shape& s : {Shape{1, 1, 1, 1}, {2, 5, 7, 13}, {2, 7, 7, 64}}) rows.push_back(mean_pixels_row(s));
  for (const Shape& s : {Shape{1, 2}, {5, 13}, {3, 2}}) rows.push_back(cross_entropy_row(s));
}

}  // namespace sgm
