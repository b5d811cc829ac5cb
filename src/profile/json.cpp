// Reports for programs: all that is known as one JSON object, and as Chrome's trace events.

#include <nlohmann/json.hpp>

#include "sgm/profile/profile.h"
#include "sgm/version.h"

namespace sgm {
namespace {

using Json = nlohmann::ordered_json;

Json json_of(const ProfileRow& row) {
  return {{"name", row.name},        {"calls", row.calls},          {"launches", row.launches},
          {"bytes", row.bytes},      {"moved", row.moved},          {"flop", row.flop},
          {"ms", 1e3 * row.seconds}, {"floor_ms", 1e3 * row.floor}, {"why_slow", why_slow(row)}};
}

Json json_of(const std::vector<ProfileRow>& rows) {
  Json all = Json::array();
  for (const ProfileRow& row : rows) all.push_back(json_of(row));
  return all;
}

Json json_of(const OpRecord& op) {
  Json launches = Json::array();
  for (const LaunchRecord& launch : op.launches) {
    Json each = {{"kernel", launch.kernel}, {"bytes", launch.bytes}, {"flop", launch.flop}};
    if (launch.start >= 0)
      each["start_ms"] = 1e3 * launch.start, each["ms"] = 1e3 * (launch.end - launch.start);
    launches.push_back(std::move(each));
  }
  Json result = {{"name", op.name},         {"phase", op.phase}, {"layer", op.layer},
                 {"bytes", op.bytes},       {"flop", op.flop},   {"start_ms", 1e3 * op.start},
                 {"ms", 1e3 * op.seconds()}};
  if (!op.plans.empty()) result["plan"] = op.plans;
  result["launches"] = std::move(launches);
  return result;
}

/// One complete event; times in microseconds, all on one thread, where later ones that lie inside earlier
/// ones are shown below them.
Json event(const std::string& name, const char* category, double start, double end) {
  return {{"name", name}, {"cat", category}, {"ph", "X"}, {"ts", 1e6 * start}, {"dur", 1e6 * (end - start)},
          {"pid", 1},     {"tid", 1}};
}

/// Events of one layer after the other: ops in a row that belong to one are inside one event.
void add_layers(Json& events, const StepRecord& step) {
  for (std::size_t i = 0; i < step.ops.size();) {
    const OpRecord& first = step.ops[i];
    std::size_t last = i;
    while (last + 1 < step.ops.size() && step.ops[last + 1].layer == first.layer &&
           step.ops[last + 1].phase == first.phase)
      ++last;
    if (!first.layer.empty()) events.push_back(event(first.layer, "layer", first.start, step.ops[last].end));
    i = last + 1;
  }
}

}  // namespace

std::string profile_json(const ProfileReport& report) {
  const ProfileRow total = total_of(report.step, report.ceilings);
  const Ceilings& c = report.ceilings;
  Json json = {{"sgm", kVersion},         {"config", report.config},
               {"mode", report.mode},     {"precision", report.precision},
               {"device", report.device}, {"libraries", report.libraries},
               {"images", report.images}};
  if (report.step_seconds > 0) {
    json["steps"] = report.steps;
    json["captured"] = report.captured;
    json["ms"] = 1e3 * report.step_seconds;
    json["images_per_second"] = report.images / report.step_seconds;
    json["peak_memory_bytes"] = report.peak_memory;
    json["ceilings"] = {{"bytes_per_second", c.bytes_per_second}, {"flop_per_second", c.flop_per_second}};
    json["gap"] = total.floor > 0 ? report.step_seconds / total.floor : 0.0;
    json["recorded_ms"] = 1e3 * report.step.seconds;
    json["idle"] = report.idle >= 0 ? Json(report.idle) : Json(nullptr);
    if (!report.why_no_activity.empty()) json["why_no_launch_times"] = report.why_no_activity;
  }
  json["total"] = json_of(total);
  json["by_op"] = json_of(rows_by_op(report.step, c));
  json["by_layer"] = json_of(rows_by_layer(report.step, c));
  Json& phases = json["phases"] = Json::array();
  for (const PhaseRecord& phase : report.step.phases)
    phases.push_back(
        {{"name", phase.name}, {"start_ms", 1e3 * phase.start}, {"ms", 1e3 * (phase.end - phase.start)}});
  Json& ops = json["ops"] = Json::array();
  for (const OpRecord& op : report.step.ops) ops.push_back(json_of(op));
  return json.dump(1) + '\n';
}

std::string profile_trace(const ProfileReport& report) {
  Json events = Json::array();
  const std::string title = report.mode + " step of " + report.config + " on " + report.device;
  events.push_back({{"name", "process_name"}, {"ph", "M"}, {"pid", 1}, {"args", {{"name", title}}}});
  for (const PhaseRecord& phase : report.step.phases)
    events.push_back(event(phase.name, "phase", phase.start, phase.end));
  add_layers(events, report.step);
  for (const OpRecord& op : report.step.ops) {
    Json one = event(op.name, "op", op.start, op.end);
    one["args"] = {
        {"layer", op.layer}, {"bytes", op.bytes}, {"flop", op.flop}, {"launches", op.launches.size()}};
    if (!op.plans.empty()) one["args"]["plan"] = op.plans;
    events.push_back(std::move(one));
    for (const LaunchRecord& launch : op.launches)
      if (launch.start >= 0) {
        Json below = event(launch.kernel, "launch", launch.start, launch.end);
        below["args"] = {{"bytes", launch.bytes}, {"flop", launch.flop}};
        events.push_back(std::move(below));
      }
  }
  return Json{{"displayTimeUnit", "ns"}, {"traceEvents", std::move(events)}}.dump() + '\n';
}

}  // namespace sgm
