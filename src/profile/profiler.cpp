#include <algorithm>
#include <utility>

#include "sgm/core/error.h"
#include "sgm/profile/profile.h"

namespace sgm {
namespace {

void add(double& sum, double value, double share) { sum += share * value; }

/// Whether two records are of the same work.
bool match(const StepRecord& a, const StepRecord& b) {
  return std::equal(a.ops.begin(), a.ops.end(), b.ops.begin(), b.ops.end(),
                    [](const auto& x, const auto& y) {
                      return x.name == y.name && x.layer == y.layer && x.launches.size() == y.launches.size();
                    }) &&
         a.phases.size() == b.phases.size();
}

}  // namespace

StepRecord mean_of(const std::vector<StepRecord>& steps) {
  check(!steps.empty(), "profile: no step was recorded");
  StepRecord mean = steps.front();
  const double share = 1.0 / static_cast<double>(steps.size());
  const auto scale = [share](auto& record) { record.start *= share, record.end *= share; };
  mean.seconds *= share;
  std::for_each(mean.phases.begin(), mean.phases.end(), scale);
  for (OpRecord& op : mean.ops) {
    scale(op);
    for (LaunchRecord& launch : op.launches) scale(launch);
  }
  for (std::size_t s = 1; s < steps.size(); ++s) {
    const StepRecord& step = steps[s];
    check(match(mean, step), "profile: steps differ in what they do; record one step only: --steps 1");
    const auto include = [share](auto& sum, const auto& record) {
      add(sum.start, record.start, share), add(sum.end, record.end, share);
    };
    add(mean.seconds, step.seconds, share);
    for (std::size_t i = 0; i < mean.phases.size(); ++i) include(mean.phases[i], step.phases[i]);
    for (std::size_t i = 0; i < mean.ops.size(); ++i) {
      include(mean.ops[i], step.ops[i]);
      for (std::size_t k = 0; k < mean.ops[i].launches.size(); ++k)
        include(mean.ops[i].launches[k], step.ops[i].launches[k]);
    }
  }
  return mean;
}

Profiler::Profiler(Context& context)
    : context_(context), timeline_(context.create_timeline()), activity_(context.create_activity_log(&why_)) {
  context_.set_recorder(this);
}

Profiler::~Profiler() { context_.set_recorder(nullptr); }

std::size_t Profiler::mark() {
  timeline_->mark();
  return marks_++;
}

void Profiler::begin() {
  context_.synchronize();
  if (activity_) activity_->take();
  step_ = {};
  op_marks_.clear(), phase_marks_.clear();
  recording_ = true;
  marks_ = 0;
  mark();
}

StepRecord Profiler::end() {
  mark();
  recording_ = false;
  std::vector<double> times = timeline_->take();
  if (context_.is_dry()) std::fill(times.begin(), times.end(), 0.0);
  const auto settle = [&times](auto& records, const std::vector<Marks>& marks) {
    for (std::size_t i = 0; i < records.size(); ++i)
      records[i].start = times[marks[i].start], records[i].end = times[marks[i].end];
  };
  settle(step_.ops, op_marks_);
  settle(step_.phases, phase_marks_);
  step_.seconds = times.back();
  if (activity_) {
    activity_->set_owner(0);
    add_activity(activity_->take());
  }
  return std::move(step_);
}

/// Gives launches the times that the device saw, and adds those that libraries made besides.
void Profiler::add_activity(const std::vector<Activity>& all) {
  double shift = 0;  // from the log's clock to the step's
  bool is_first = true;
  std::vector<std::size_t> seen(step_.ops.size());
  for (const Activity& activity : all) {
    if (activity.owner == 0 || activity.owner > step_.ops.size()) continue;
    const std::size_t i = static_cast<std::size_t>(activity.owner - 1);
    OpRecord& op = step_.ops[i];
    if (std::exchange(is_first, false)) shift = op.start - activity.start;
    if (seen[i] == op.launches.size()) op.launches.push_back({activity.kernel});
    LaunchRecord& launch = op.launches[seen[i]++];
    launch.start = activity.start + shift, launch.end = activity.end + shift;
  }
}

void Profiler::enter(RangeKind kind, const char* name) {
  open_.push_back({kind == RangeKind::phase   ? Open::Kind::phase
                   : kind == RangeKind::layer ? Open::Kind::layer
                                              : Open::Kind::other,
                   layer_.size()});
  if (kind == RangeKind::layer) {
    if (!layer_.empty()) layer_ += '.';
    layer_ += name;
  }
  if (kind != RangeKind::phase) return;
  open_.back().outer = step_.phases.size();
  if (!recording_) return;
  step_.phases.push_back({name});
  phase_marks_.push_back({mark(), 0});
}

void Profiler::enter_op(const Work& op) {
  const bool inside =
      std::any_of(open_.begin(), open_.end(), [](const Open& o) { return o.kind == Open::Kind::op; });
  open_.push_back({inside ? Open::Kind::other : Open::Kind::op, layer_.size()});
  if (inside || !recording_) return;
  const auto phase =
      std::find_if(open_.rbegin(), open_.rend(), [](const Open& o) { return o.kind == Open::Kind::phase; });
  OpRecord record;
  record.name = op.kernel;
  if (phase != open_.rend() && phase->outer < step_.phases.size())
    record.phase = step_.phases[phase->outer].name;
  record.layer = layer_;
  record.product = op.flop > 0;
  record.bytes = op.bytes;
  record.flop = op.flop;
  step_.ops.push_back(std::move(record));
  if (activity_) activity_->set_owner(step_.ops.size());
  op_marks_.push_back({mark(), 0});
}

void Profiler::leave() {
  const Open closed = open_.back();
  open_.pop_back();
  if (closed.kind == Open::Kind::layer) layer_.resize(closed.outer);
  if (!recording_) return;
  if (closed.kind == Open::Kind::op) op_marks_.back().end = mark();
  if (closed.kind == Open::Kind::phase && closed.outer < phase_marks_.size())
    phase_marks_[closed.outer].end = mark();
  if (closed.kind == Open::Kind::op && activity_) activity_->set_owner(0);
}

void Profiler::work(const Work& work) {
  if (recording_ && !step_.ops.empty())
    step_.ops.back().launches.push_back({work.kernel, work.bytes, work.flop});
}

void Profiler::plan(const std::string& text) {
  if (recording_ && !step_.ops.empty()) step_.ops.back().plans.push_back(text);
}

}  // namespace sgm
