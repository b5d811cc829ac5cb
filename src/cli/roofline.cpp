#include "cli/roofline.h"

#include <algorithm>
#include <map>

#include "sgm/core/error.h"
#include "sgm/plot/figure.h"

namespace sgm::cli {

Image draw_roofline(const ProfileReport& report) {
  std::map<std::string, Scatter> by_op;
  double least = 1e30, most = 0;
  for (const OpRecord& op : report.step.ops) {
    if (!op.product || op.seconds() <= 0) continue;
    Scatter& points = by_op[op.name];
    points.x.push_back(op.flop / static_cast<double>(op.bytes));
    points.y.push_back(1e-9 * op.flop / op.seconds());
    least = std::min(least, points.x.back());
    most = std::max(most, points.x.back());
  }
  check(!by_op.empty() && report.ceilings.known(), "--plot: the step has no timed products");
  const double flop = 1e-9 * report.ceilings.flop_per_second, bytes = 1e-9 * report.ceilings.bytes_per_second;
  const double ridge = flop / bytes, left = 0.5 * std::min(least, ridge), right = 2.0 * std::max(most, ridge);

  Figure figure({.width = 760, .height = 460});
  Axes& axes = figure.at(0);
  axes.title = report.config + ", " + report.mode + ", " + report.precision;
  axes.x = {.label = "FLOP per byte of operands", .low = left, .high = right, .is_log = true};
  axes.y = {.label = "GFLOP/s", .is_log = true};
  axes.add(Line{.x = {left, ridge, right},
                .y = {left * bytes, flop, flop},
                .label = "measured ceilings: copy, product",
                .color = kGrey,
                .width = 2.0});
  for (auto& [name, points] : by_op) {
    points.label = name;
    points.radius = 2.5;
    axes.add(std::move(points));
  }
  return figure.draw();
}

}  // namespace sgm::cli
