#include <algorithm>
#include <map>
#include <sstream>

#include "sgm/profile/profile.h"

namespace sgm {
namespace {

void include(ProfileRow& row, const OpRecord& op, const Ceilings& ceilings) {
  ++row.calls;
  row.launches += std::ssize(op.launches);
  row.bytes += op.bytes;
  for (const LaunchRecord& launch : op.launches) row.moved += launch.bytes;
  row.flop += op.flop;
  row.seconds += op.seconds();
  row.floor += ceilings.seconds(op.bytes, op.flop);
}

std::vector<ProfileRow> rows_by(const StepRecord& step, const Ceilings& ceilings,
                                std::string OpRecord::*key) {
  std::map<std::string, ProfileRow> rows;
  for (const OpRecord& op : step.ops) {
    ProfileRow& row = rows[op.*key];
    row.name = op.*key;
    include(row, op, ceilings);
  }
  std::vector<ProfileRow> sorted;
  for (auto& [name, row] : rows) sorted.push_back(std::move(row));
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
    return a.seconds != b.seconds ? a.seconds > b.seconds : a.bytes > b.bytes;
  });
  return sorted;
}

}  // namespace

std::vector<ProfileRow> rows_by_op(const StepRecord& step, const Ceilings& ceilings) {
  return rows_by(step, ceilings, &OpRecord::name);
}

std::vector<ProfileRow> rows_by_layer(const StepRecord& step, const Ceilings& ceilings) {
  return rows_by(step, ceilings, &OpRecord::layer);
}

ProfileRow total_of(const StepRecord& step, const Ceilings& ceilings) {
  ProfileRow total;
  total.name = "step";
  for (const OpRecord& op : step.ops) include(total, op, ceilings);
  return total;
}

std::string why_slow(const ProfileRow& row) {
  constexpr double kNear = 0.6;          // of the floor: as fast as can be asked for
  constexpr double kExtraTraffic = 1.2;  // more than operands must move
  constexpr double kSmall = 10e-6;       // of which starting takes a good part
  if (row.floor <= 0 || row.seconds * kNear <= row.floor) return {};
  std::ostringstream text;
  text.precision(2);
  const auto add = [&text](const auto&... parts) {
    if (text.tellp() > 0) text << ", ";
    (text << ... << parts);
  };
  const auto calls = static_cast<double>(row.calls), launches = static_cast<double>(row.launches);
  if (row.launches > row.calls) add(launches / calls, " launches a call");
  const auto traffic =
      static_cast<double>(row.moved) / static_cast<double>(std::max<std::int64_t>(row.bytes, 1));
  if (traffic > kExtraTraffic) add("moves ", traffic, " x its operands");
  if (row.floor / calls < kSmall) add("small: ", 1e6 * row.floor / calls, " us a call at the ceiling");
  if (text.tellp() == 0) add("no reason in the counts");
  return text.str();
}

std::vector<PlanRow> plans_of(const StepRecord& step) {
  std::map<std::pair<std::string, std::string>, PlanRow> rows;
  for (const OpRecord& op : step.ops) {
    std::string plan;
    for (const std::string& line : op.plans) plan += (plan.empty() ? "" : "; then ") + line;
    if (plan.empty()) continue;
    PlanRow& row = rows[{op.name, plan}];
    row.op = op.name, row.plan = plan;
    ++row.calls;
    row.seconds += op.seconds();
    row.flop += op.flop;
  }
  std::vector<PlanRow> sorted;
  for (auto& [key, row] : rows) sorted.push_back(std::move(row));
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.seconds > b.seconds; });
  return sorted;
}

}  // namespace sgm
