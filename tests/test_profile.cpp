// Where the time of a step goes: what is recorded of it, and what is told of the record.

#include "sgm/profile/profile.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "devices.h"
#include "expect_error.h"
#include "sgm/train/trainer.h"
#include "tiny_training.h"

namespace sgm {
namespace {

/// One recorded training step, after one that allocates.
StepRecord record_step(Trainer& trainer) {
  trainer.launch();
  Profiler profiler(trainer.context());
  trainer.launch();
  profiler.begin();
  trainer.launch();
  return profiler.end();
}

using Profiles = DeviceTest;
INSTANTIATE_TEST_SUITE_P(Devices, Profiles, testing::ValuesIn(test_devices()), device_name);

TEST_P(Profiles, TimesOfOpsLieInTheStepOneAfterTheOther) {
  const BarImages images(8);
  Trainer trainer(tiny_config(), images, context());
  const StepRecord step = record_step(trainer);
  ASSERT_GT(step.ops.size(), 100u);
  double before = 0, sum = 0;
  for (const OpRecord& op : step.ops) {
    EXPECT_LE(before, op.start) << op.name;
    EXPECT_LE(op.start, op.end) << op.name;
    EXPECT_FALSE(op.launches.empty()) << op.name;
    EXPECT_FALSE(op.phase.empty()) << op.name;
    before = op.end;
    sum += op.seconds();
  }
  EXPECT_LE(before, step.seconds);
  EXPECT_GT(sum, 0.0);
  ASSERT_EQ(step.phases.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    const PhaseRecord& phase = step.phases[i];
    EXPECT_EQ(phase.name, std::vector<std::string>({"forward", "backward", "optimizer"})[i]);
    for (const OpRecord& op : step.ops) {
      if (op.phase != phase.name) continue;
      EXPECT_LE(phase.start, op.start);
      EXPECT_LE(op.end, phase.end);
    }
  }
}

TEST_P(Profiles, FindLayersInBackwardAsInForward) {
  const BarImages images(8);
  Trainer trainer(tiny_config(), images, context());
  const StepRecord step = record_step(trainer);
  std::map<std::string, std::set<std::string>> layers;  // of each phase, those with products or norms
  for (const OpRecord& op : step.ops)
    if (!op.layer.empty() && (op.product || op.name.starts_with("GroupNorm")))
      layers[op.phase].insert(op.layer);
  EXPECT_GT(layers["forward"].size(), 20u);
  EXPECT_EQ(layers["forward"], layers["backward"]);
  // They are called like their parameters; what has none works on another layer's numbers.
  const std::vector<Parameter> parameters = trainer.network().parameters();
  for (const std::string& layer : layers["forward"])
    EXPECT_TRUE(std::any_of(parameters.begin(), parameters.end(), [&](const Parameter& p) {
      return p.name.starts_with(layer + '.');
    })) << layer;
}

TEST_P(Profiles, LeaveTheStepAsItIs) {
  const BarImages images(8);
  Trainer watched(tiny_config(), images, context()), alone(tiny_config(), images, context());
  record_step(watched);
  for (int i = 0; i < 3; ++i) alone.launch();
  expect_same_bits(state_of(watched.network(), watched.optimizer()),
                   state_of(alone.network(), alone.optimizer()));
}

/// Every op of kernels/.
std::set<std::string> declared_ops() {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(SGM_SOURCE_DIR "/kernels")) {
    if (entry.path().extension() != ".h") continue;
    std::ifstream file(entry.path());
    std::string line, current;
    while (std::getline(file, line)) {
      if (line.starts_with("struct ")) current = line.substr(7, line.find(' ', 7) - 7);
      if (line.find("void cpu(Context") != std::string::npos) names.insert(current);
    }
  }
  return names;
}

ProfileReport report_of(Context& context, const StepRecord& step) {
  ProfileReport report;
  report.config = "tiny.toml", report.mode = "train", report.precision = "f32";
  report.device = context.describe();
  report.images = 3;
  report.step_seconds = step.seconds;
  report.ceilings = {1e10, 1e11};
  report.step = step;
  return report;
}

TEST_P(Profiles, AddUpInEveryReport) {
  const BarImages images(8);
  Trainer trainer(tiny_config(), images, context());
  const StepRecord step = record_step(trainer);
  const ProfileReport report = report_of(context(), step);
  const ProfileRow total = total_of(step, report.ceilings);
  const std::set<std::string> known = declared_ops();
  for (const auto& rows : {rows_by_op(step, report.ceilings), rows_by_layer(step, report.ceilings)}) {
    ProfileRow sum;
    for (const ProfileRow& row : rows) {
      sum.calls += row.calls, sum.launches += row.launches, sum.bytes += row.bytes, sum.moved += row.moved;
      sum.flop += row.flop, sum.seconds += row.seconds, sum.floor += row.floor;
    }
    EXPECT_EQ(sum.calls, std::ssize(step.ops));
    EXPECT_EQ(sum.launches, total.launches);
    EXPECT_EQ(sum.bytes, total.bytes);
    EXPECT_EQ(sum.moved, total.moved);
    EXPECT_NEAR(sum.flop, total.flop, 1e-9 * total.flop);
    EXPECT_NEAR(sum.seconds, total.seconds, 1e-9 * total.seconds);
    EXPECT_NEAR(sum.floor, total.floor, 1e-9 * total.floor);
  }
  for (const ProfileRow& row : rows_by_op(step, report.ceilings))
    EXPECT_TRUE(known.contains(row.name)) << row.name;
  EXPECT_LE(total.seconds, step.seconds);

  const auto json = nlohmann::json::parse(profile_json(report));
  EXPECT_EQ(json["total"]["launches"], total.launches);
  EXPECT_EQ(json["ops"].size(), step.ops.size());
  EXPECT_DOUBLE_EQ(json["gap"].get<double>(), step.seconds / total.floor);
  std::ostringstream table;
  write_table(table, report, {.all = true, .plans = true});
  for (const ProfileRow& row : rows_by_layer(step, report.ceilings))
    EXPECT_NE(table.str().find(row.name), std::string::npos) << row.name;
}

TEST_P(Profiles, NestInTraces) {
  const BarImages images(8);
  Trainer trainer(tiny_config(), images, context());
  const StepRecord step = record_step(trainer);
  const auto trace = nlohmann::json::parse(profile_trace(report_of(context(), step)));
  struct Event {
    std::string category;
    double start, end;
  };
  std::map<std::string, std::vector<Event>> events;
  for (const auto& event : trace["traceEvents"])
    if (event["ph"] == "X") {
      const double start = event["ts"], duration = event["dur"];
      EXPECT_GE(duration, 0.0);
      events[event["cat"]].push_back({event["cat"], start, start + duration});
    }
  EXPECT_EQ(events["phase"].size(), 3u);
  EXPECT_EQ(events["op"].size(), step.ops.size());
  EXPECT_GT(events["layer"].size(), 40u);
  constexpr double kRounding = 1e-6;  // of microseconds
  const auto inside = [&](const Event& inner, const std::vector<Event>& outer) {
    return std::any_of(outer.begin(), outer.end(), [&](const Event& e) {
      return e.start <= inner.start + kRounding && inner.end <= e.end + kRounding;
    });
  };
  for (const Event& layer : events["layer"]) EXPECT_TRUE(inside(layer, events["phase"]));
  for (const Event& op : events["op"]) EXPECT_TRUE(inside(op, events["phase"]));
  // Nothing overlaps its neighbour.
  for (auto& [category, all] : events)
    for (std::size_t i = 1; i < all.size(); ++i)
      EXPECT_LE(all[i - 1].end, all[i].start + kRounding) << category;
}

TEST(Profile, OpsAreMostOfAStepOfARealNetwork) {
  Config config = load_config(SGM_SOURCE_DIR "/configs/ve_cifar10_ncsnpp_continuous.toml");
  config.model.nf = 32;
  config.model.num_res_blocks = 1;
  config.training.batch_size = 4;
  const auto context = create_context("cpu", 2);
  const auto dataset = random_dataset(config.data.image_size, config.data.num_channels);
  Trainer trainer(config, *dataset, *context);
  const StepRecord step = record_step(trainer);
  const ProfileRow total = total_of(step, {});
  EXPECT_LE(total.seconds, step.seconds);
  EXPECT_GE(total.seconds, 0.6 * step.seconds);
  for (const OpRecord& op : step.ops) {
    EXPECT_EQ(op.launches.size(), 1u) << op.name;
    EXPECT_EQ(op.product, !op.plans.empty()) << op.name << ": products have plans, and nothing else has";
  }
}

TEST(Profile, CountsWithoutADevice) {
  if (cuda_library_versions().empty()) GTEST_SKIP() << "this build has no CUDA backend";
  const auto context = create_context("cuda-dry");
  const BarImages images(8);
  Trainer trainer(tiny_config(), images, *context);
  trainer.launch();
  Profiler profiler(*context);
  context->take_launch_counts();
  profiler.begin();
  trainer.launch();
  const StepRecord step = profiler.end();
  const ProfileRow total = total_of(step, {});
  std::int64_t launches = 0, bytes = 0;
  double flop = 0;
  for (const LaunchCount& count : context->take_launch_counts())
    launches += count.launches, bytes += count.bytes, flop += count.flop;
  EXPECT_EQ(total.launches, launches);
  EXPECT_EQ(total.moved, bytes);
  EXPECT_NEAR(total.flop, flop, 1e-9 * flop);
  EXPECT_GE(total.moved, total.bytes);
  EXPECT_EQ(step.seconds, 0.0);
}

TEST(Profile, FloorIsWhatTakesLonger) {
  const Ceilings ceilings{1e9, 1e12};
  EXPECT_DOUBLE_EQ(ceilings.seconds(2'000'000'000, 1e12), 2.0);
  EXPECT_DOUBLE_EQ(ceilings.seconds(1'000'000, 3e12), 3.0);
  EXPECT_EQ(Ceilings{}.seconds(1, 1), 0.0);
}

TEST(Profile, ReasonsComeFromTheCounts) {
  ProfileRow row{"GroupNorm", 10, 10, 1000, 1000, 0, 1.0, 0.7};
  EXPECT_EQ(why_slow(row), "");
  row.floor = 0.5;
  EXPECT_EQ(why_slow(row), "no reason in the counts");
  row.launches = 20;
  EXPECT_EQ(why_slow(row), "2 launches a call");
  row.moved = 1500;
  EXPECT_EQ(why_slow(row), "2 launches a call, moves 1.5 x its operands");
  row.floor = 1e-5;
  EXPECT_EQ(why_slow(row), "2 launches a call, moves 1.5 x its operands, small: 1 us a call at the ceiling");
}

TEST(Profile, MeansAreOfEqualSteps) {
  StepRecord one, two;
  one.ops.resize(1), two.ops.resize(1);
  one.ops[0].name = two.ops[0].name = "Fill";
  one.ops[0].end = 1.0, two.ops[0].start = 1.0, two.ops[0].end = 3.0;
  one.seconds = 2.0, two.seconds = 4.0;
  const StepRecord mean = mean_of({one, two});
  EXPECT_EQ(mean.seconds, 3.0);
  EXPECT_EQ(mean.ops[0].start, 0.5);
  EXPECT_EQ(mean.ops[0].end, 2.0);
  two.ops[0].name = "Cast";
  expect_error({"steps differ", "--steps 1"}, [&] { mean_of({one, two}); });
}

TEST_P(Profiles, CeilingsAreMeasured) {
#ifdef SGM_EMULATE_CUDA
  GTEST_SKIP() << "an emulated device would take minutes";
#endif
  const Ceilings ceilings = measure_ceilings(context(), DType::f32);
  EXPECT_GT(ceilings.bytes_per_second, 1e8);
  EXPECT_GT(ceilings.flop_per_second, 1e9);
}

}  // namespace
}  // namespace sgm
