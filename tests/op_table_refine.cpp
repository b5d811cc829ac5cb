#include "naive_refine.h"
#include "op_table.h"

namespace sgm {
namespace {

void add_poolings(std::vector<OpRow>& rows) {
  for (const Shape& s : {Shape{1, 1, 1, 1}, {2, 3, 7, 5}, {1, 9, 6, 8}, {1, 16, 16, 64}})
    for (const int radius : {0, 1, 2}) {
      if (radius != 2 && s != Shape{2, 3, 7, 5}) continue;
      rows.push_back({.name = text_of("max_pool ", s, ", radius ", radius),
                      .op = "max_pool",
                      .inputs = {{s}},
                      .build = [=](Vars v) { return max_pool(v[0], radius); },
                      .naive = [=](const Inputs& v) { return naive::max_pool(v[0], radius); },
                      .affine = false,
                      .f32 = {3e-7}});
    }
}

void add_resizings(std::vector<OpRow>& rows) {
  struct Sizes {
    Shape x;
    std::int64_t height, width;
  };
  for (const auto& [s, height, width] : {Sizes{{1, 1, 1, 1}, 1, 1},
                                         {{2, 5, 3, 3}, 9, 6},
                                         {{1, 7, 8, 5}, 3, 4},
                                         {{1, 4, 3, 8}, 1, 2},
                                         {{1, 1, 2, 8}, 5, 1},
                                         {{2, 4, 4, 2}, 4, 4},
                                         {{1, 16, 16, 64}, 32, 32}})
    rows.push_back(
        {.name = text_of("resize_bilinear ", s, " to ", height, " x ", width),
         .op = "resize_bilinear",
         .inputs = {{s}},
         .build = [height, width](Vars v) { return resize_bilinear(v[0], height, width); },
         .naive = [height, width](const Inputs& v) { return naive::resize_bilinear(v[0], height, width); },
         .f32 = {4e-7}});
}

void add_instance_norms(std::vector<OpRow>& rows) {
  struct Norm {
    Shape x;
    int table_rows;  // 0: one, without labels
    double mean = 0.0;
    Tolerance f32 = {1e-6};
  };
  const std::vector<double> labels = {3.0, 0.0, 2.9, -1.0, 17.0};  // cut to integers, clamped to the table
  for (const auto& [s, table_rows, mean, tolerance] :
       {Norm{{1, 2, 2, 2}, 0},
        {{2, 3, 5, 7}, 0},
        {{5, 3, 2, 6}, 4},
        {{1, 9, 9, 40}, 4},
        {{2, 16, 16, 64}, 10},
        // Far from zero: the f32 rounding of x itself, 2^-24 30, is 2e-6 of the standard deviation.
        {{2, 5, 7, 12}, 0, 30.0, {4e-6}}}) {
    const auto row_of = [table_rows](double label) {
      return static_cast<int>(std::clamp(std::trunc(label), 0.0, std::max(0.0, table_rows - 1.0)));
    };
    const Shape table = table_rows ? Shape{table_rows, 3 * s[3]} : Shape{3 * s[3]};
    rows.push_back({.name = text_of("instance_norm_plus ", s, ", table ", table, ", mean ", mean),
                    .op = "instance_norm_plus",
                    .inputs = {{.shape = s, .mean = mean},
                               {.shape = table, .role = Role::parameter, .mean = 0.5, .std = 0.5}},
                    .build =
                        [labels, table_rows](Vars v) {
                          const std::int64_t n = v[0].shape()[0];
                          const std::vector<double> first(labels.begin(), labels.begin() + n);
                          const Tensor label = tensor_of(v[0].value().context(), first, {n}, DType::f64);
                          return instance_norm_plus(v[0], v[1], table_rows ? label : Tensor());
                        },
                    .naive =
                        [labels, row_of](const Inputs& v) {
                          std::vector<int> used;
                          for (const double label : labels) used.push_back(row_of(label));
                          return naive::instance_norm_plus(v[0], v[1], used, 1e-5);
                        },
                    .affine = false,
                    .f32 = tolerance});
  }
}

}  // namespace

void add_refine_ops(std::vector<OpRow>& rows) {
  add_poolings(rows);
  add_resizings(rows);
  add_instance_norms(rows);
}

}  // namespace sgm
