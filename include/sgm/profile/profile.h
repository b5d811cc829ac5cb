#pragma once
// Where the time of a step goes: every op and every launch, what they cost at the least, and what the device
// can do.

#include <cstdint>
#include <iosfwd>
#include <memory>
#include <string>
#include <vector>

#include "sgm/core/context.h"
#include "sgm/core/types.h"

namespace sgm {

/// One launch of an op. Times are seconds since the step began, negative where nobody knows them.
struct LaunchRecord {
  std::string kernel;
  std::int64_t bytes = 0;  // that it moves
  double flop = 0;
  double start = -1, end = -1;
};

/// One op of a step.
struct OpRecord {
  std::string name;   // of its struct, e.g. "Conv2d"
  std::string phase;  // e.g. "backward"
  std::string layer;  // e.g. "down.1.block0.conv1", in backward as in forward; empty outside of layers
  bool product = false;
  std::int64_t bytes = 0;  // of its operands, each once
  double flop = 0;
  double start = 0, end = 0;       // seconds since the step began
  std::vector<std::string> plans;  // how a library does it, one line for each product
  std::vector<LaunchRecord> launches;

  double seconds() const { return end - start; }
};

/// A part of a step, from its first op to its last.
struct PhaseRecord {
  std::string name;
  double start = 0, end = 0;
};

/// What happened between begin() and end().
struct StepRecord {
  std::vector<PhaseRecord> phases;
  std::vector<OpRecord> ops;  // in the order of their execution
  double seconds = 0;
};

/// The mean of several records of the same step, op by op. Throws Error where their ops differ.
StepRecord mean_of(const std::vector<StepRecord>& steps);

/// Records what a context does, from its construction on; steps are then launched call by call. On a GPU ops
/// are timed there, between their first launch and their last, with the gaps between launches.
class Profiler final : public Recorder {
 public:
  explicit Profiler(Context& context);
  ~Profiler() override;
  Profiler(const Profiler&) = delete;
  Profiler& operator=(const Profiler&) = delete;

  /// A step begins, now that the device has nothing left to do.
  void begin();
  /// It ends; waits for the device.
  StepRecord end();

  /// Why launches have no times; empty where they have.
  const std::string& why_no_activity() const { return why_; }

  void enter(RangeKind kind, const char* name) override;
  void enter_op(const Work& op) override;
  void leave() override;
  void work(const Work& work) override;
  void plan(const std::string& text) override;
  std::string layer() const override { return layer_; }

 private:
  struct Open {
    enum class Kind { phase, layer, op, other } kind;
    std::size_t outer;  // of a layer: the length of layer_ outside; of a phase: its number
  };
  struct Marks {
    std::size_t start, end;
  };
  std::size_t mark();
  void add_activity(const std::vector<Activity>& all);

  Context& context_;
  std::string why_;
  std::unique_ptr<Timeline> timeline_;
  std::unique_ptr<ActivityLog> activity_;  // null: the device keeps none
  bool recording_ = false;
  std::size_t marks_ = 0;
  std::vector<Open> open_;
  std::string layer_;
  StepRecord step_;
  std::vector<Marks> op_marks_, phase_marks_;  // of step_'s ops and phases
};

/// What a device can do at the most, measured: a copy of memory, and a product of matrices.
struct Ceilings {
  double bytes_per_second = 0;  // read and written; 0: not measured
  double flop_per_second = 0;

  bool known() const { return bytes_per_second > 0 && flop_per_second > 0; }
  /// The least time for that much.
  double seconds(std::int64_t bytes, double flop) const;
};
/// Takes a few tenths of a second. `type`: of the matrices, as the step has it (f32 as the context rounds
/// it).
Ceilings measure_ceilings(Context& context, DType type);

/// Ops that have something in common, added up over a step.
struct ProfileRow {
  std::string name;
  std::int64_t calls = 0, launches = 0;
  std::int64_t bytes = 0;  // of operands, each once
  std::int64_t moved = 0;  // by the launches
  double flop = 0;
  double seconds = 0, floor = 0;  // floor: the sum of what each op takes at the device's ceilings
};
/// Rows of the step, those that took longest first (without times: the most bytes). Several ops of one name
/// are one row; so are all ops of one layer, in all phases.
std::vector<ProfileRow> rows_by_op(const StepRecord& step, const Ceilings& ceilings);
std::vector<ProfileRow> rows_by_layer(const StepRecord& step, const Ceilings& ceilings);
/// All of the step.
ProfileRow total_of(const StepRecord& step, const Ceilings& ceilings);
/// Why a row takes longer than its floor, as far as the counts tell; empty where it hardly does.
std::string why_slow(const ProfileRow& row);

/// A plan, and the ops that it executes.
struct PlanRow {
  std::string op, plan;
  std::int64_t calls = 0;
  double seconds = 0, flop = 0;
};
std::vector<PlanRow> plans_of(const StepRecord& step);

/// All that is known of a step.
struct ProfileReport {
  std::string config, mode, precision;
  std::string device, libraries;
  double images = 0;
  int steps = 1;                // that were timed
  double step_seconds = 0;      // of a step as it runs unwatched; 0: counted only
  bool captured = false;        // those steps were replays of a graph
  double idle = -1;             // share of the step in which the device did nothing; negative: unknown
  std::string why_no_activity;  // why launches have no times; empty where they have
  std::size_t peak_memory = 0;  // bytes of tensors
  Ceilings ceilings;
  StepRecord step;
};

/// Which parts the table has.
struct TableOptions {
  bool all = false;    // every layer instead of the slowest 20
  bool plans = false;  // how libraries do the products
};
void write_table(std::ostream& out, const ProfileReport& report, const TableOptions& options);
/// Everything, as one JSON object.
std::string profile_json(const ProfileReport& report);
/// Chrome's trace events, which ui.perfetto.dev shows: phases, in them layers, ops and launches.
std::string profile_trace(const ProfileReport& report);

}  // namespace sgm
