// What cuDNN offers for the convolutions of real networks on an H200, asked without one: cuDNN answers for
// the device that tests/cudnn/h200.json describes.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <optional>
#include <set>

#include "backend/cuda/conv_plans.h"
#include "expect_error.h"
#include "sgm/core/config.h"
#include "sgm/nn/module.h"
#include "temp_folder.h"

namespace sgm::cudnn {
namespace {

using Kind = ConvGraph::Kind;

constexpr ConvShape kShape{8, 16, 16, 64, 96, 3, 3, 16, 16, 1, 1, 1, 0};

/// The H200, or the reason why this cuDNN cannot be asked about it.
std::optional<Target> h200(std::string& why_not) {
  std::ifstream file(SGM_SOURCE_DIR "/tests/cudnn/h200.json");
  std::string json(std::istreambuf_iterator<char>(file), {});
  while (!json.empty() && json.back() == '\n') json.pop_back();
  try {
    return Target(json);
  } catch (const Error& error) {
    why_not = error.what();
    return std::nullopt;
  }
}

class CudnnPlans : public testing::Test {
 protected:
  void SetUp() override {
    std::string why_not;
    target_ = h200(why_not);
    if (!target_) GTEST_SKIP() << why_not;
  }
  const Target& target() const { return *target_; }

 private:
  std::optional<Target> target_;
};

/// The convolutions of one training step, and of the gradient in the images besides.
std::vector<ConvGraph> graphs_of(const std::string& name, std::int64_t batch, DType compute) {
  const Config config = load_config(std::filesystem::path(SGM_SOURCE_DIR "/configs") / (name + ".toml"));
  const auto context = create_context("cuda-dry");
  const auto network = create_network(config, *context, DType::f32, false);
  const std::int64_t size = config.data.image_size;
  const Var x(Tensor::empty(*context, {batch, size, size, config.data.num_channels}, DType::f32), true);
  const Tensor label = Tensor::empty(*context, {batch}, DType::f64);
  const Var y = network->forward(x, label, {.compute = compute, .training = true, .noise = {}});
  y.backward(Tensor::empty(*context, y.shape(), y.value().dtype()));
  return cuda(*context).part<ConvPlans>().requested();
}

TEST_F(CudnnPlans, EveryConvolutionOfTheNetworksRunsOnCompiledCode) {
  const std::pair<const char*, std::int64_t> networks[] = {{"ve_cifar10_ncsnpp_continuous", 128},
                                                           {"vp_cifar10_ddpmpp_continuous", 128},
                                                           {"ve_ffhq_256_ncsnpp_continuous", 8}};
  for (const auto& [name, batch] : networks)
    for (const DType compute : {DType::f32, DType::bf16}) {
      SCOPED_TRACE(std::string(name) + " in " + std::string(name_of(compute)));
      std::vector<ConvGraph> graphs = graphs_of(name, batch, compute);
      const auto has = [&](Kind kind, bool residual) {
        return std::any_of(graphs.begin(), graphs.end(), [&](const ConvGraph& g) {
          return g.kind == kind && g.residual == residual && g.type == compute;
        });
      };
      EXPECT_TRUE(has(Kind::forward, true) && has(Kind::forward, false) && has(Kind::grad_input, false) &&
                  has(Kind::grad_weight, false));
      EXPECT_GE(graphs.size(), 40u);
      // With TF32 as well as without.
      const std::size_t exact = graphs.size();
      for (std::size_t i = 0; i < exact; ++i)
        if (graphs[i].type == DType::f32) graphs.push_back(graphs[i]), graphs.back().tf32 = true;
      std::size_t plans = 0;
      for (const ConvGraph& graph : graphs) {
        const Candidates found = candidates(target(), graph, false);
        EXPECT_FALSE(found.plans.empty()) << graph.text() << ": " << found.why_none;
        for (const Plan& plan : found.plans) {
          EXPECT_TRUE(graph.accepts(plan.notes()));
          EXPECT_LE(plan.workspace(), graph.most_workspace());
        }
        plans += found.plans.size();
      }
      std::cout << name << " in " << compute << ": " << graphs.size() << " convolutions, " << plans
                << " plans\n";
    }
}

TEST_F(CudnnPlans, PlansAreBuiltAgainFromTheirText) {
  for (const Kind kind : {Kind::forward, Kind::grad_input, Kind::grad_weight}) {
    const ConvGraph graph{.kind = kind, .shape = kShape, .type = DType::bf16, .scale = 0.5};
    const Descriptor description = graph.describe(target());
    const Candidates found = candidates(target(), graph, false);
    ASSERT_FALSE(found.plans.empty()) << found.why_none;
    std::set<std::string> texts;
    for (const Plan& plan : found.plans) {
      const std::string text = plan.choice().text();
      EXPECT_TRUE(texts.insert(text).second) << text << " stands for two plans";
      const Plan again(target(), description, EngineChoice::parse(text), "again");
      EXPECT_EQ(again.choice().text(), text);
      EXPECT_EQ(again.workspace(), plan.workspace());
      EXPECT_EQ(again.notes().tensor_core, plan.notes().tensor_core);
    }
  }
}

TEST_F(CudnnPlans, EnginesThatCompileAreToldFromThoseThatDoNot) {
  const ConvGraph graph{.kind = Kind::forward, .shape = kShape, .type = DType::bf16};
  const Descriptor description = graph.describe(target());
  const auto engines = description.get<std::int64_t>(CUDNN_ATTR_OPERATIONGRAPH_ENGINE_GLOBAL_COUNT);
  int compiling = 0, compiled = 0;
  for (std::int64_t i = 0; i < engines; ++i) try {
      Descriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR, "engine");
      engine.set(CUDNN_ATTR_ENGINE_OPERATION_GRAPH, description).set(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, i);
      target().name_in(engine, CUDNN_ATTR_ENGINE_DEVICEPROP);
      ++(compiles_at_run_time(engine.finalize()) ? compiling : compiled);
    } catch (const Error&) {  // an engine of other devices
    }
  EXPECT_GT(compiled, 0);
  EXPECT_GT(compiling, 0);
}

TEST_F(CudnnPlans, RefuseEnginesThatRoundMoreThanTheTypesSay) {
  ConvGraph graph{.kind = Kind::forward, .shape = kShape, .type = DType::f32};
  for (const Plan& plan : candidates(target(), graph, false).plans) EXPECT_FALSE(plan.notes().tensor_core);
  graph.tf32 = true;
  const Candidates found = candidates(target(), graph, false);
  EXPECT_TRUE(std::any_of(found.plans.begin(), found.plans.end(),
                          [](const Plan& plan) { return plan.notes().tensor_core; }));
  graph.type = DType::bf16;
  EXPECT_TRUE(graph.accepts({.tensor_core = true}));
  EXPECT_FALSE(graph.accepts({.nondeterministic = true}));
  EXPECT_FALSE(graph.accepts({.down_converts = true}));
  EXPECT_FALSE(graph.accepts({.reduced_reduction = true}));
  EXPECT_FALSE(graph.accepts({.winograd = true}));
}

TEST_F(CudnnPlans, ErrorsNameTheConvolutionAndTheReason) {
  ConvGraph graph{.kind = Kind::forward, .shape = kShape, .type = DType::bf16};
  graph.shape.oh = 99;
  expect_error({"cudnnBackendFinalize", "forward/bf16/x8x16x16x64/w96x3x3"},
               [&] { graph.describe(target()); });
  graph.shape = kShape, graph.bias = true, graph.scale = 0.5;
  expect_error({"cannot be scaled"}, [&] { graph.describe(target()); });
  expect_error({"cudnnBackendFinalize", "device description"}, [] { Target(std::string("{}")); });
}

TEST(ConvGraphs, AreToldApart) {
  std::vector<ConvGraph> graphs;
  const ConvGraph base{.kind = Kind::forward, .shape = kShape, .type = DType::f32};
  graphs.push_back(base);
  const auto add = [&](auto change) {
    graphs.push_back(base);
    change(graphs.back());
  };
  add([](ConvGraph& g) { g.kind = Kind::grad_input; });
  add([](ConvGraph& g) { g.kind = Kind::grad_weight; });
  add([](ConvGraph& g) { g.type = DType::bf16; });
  add([](ConvGraph& g) { g.scale = 1.0 + 0x1p-50; });
  add([](ConvGraph& g) { g.bias = true; });
  add([](ConvGraph& g) { g.bias = g.residual = true; });
  add([](ConvGraph& g) { g.tf32 = true; });
  add([](ConvGraph& g) { g.shape.n = 9; });
  add([](ConvGraph& g) { g.shape.h = g.shape.oh = 17; });
  add([](ConvGraph& g) { g.shape.w = g.shape.ow = 17; });
  add([](ConvGraph& g) { g.shape.c = 65; });
  add([](ConvGraph& g) { g.shape.k = 65; });
  add([](ConvGraph& g) { g.shape.r = 2; });
  add([](ConvGraph& g) { g.shape.s = 2; });
  add([](ConvGraph& g) { g.shape.stride = 2; });
  add([](ConvGraph& g) { g.shape.dilation = 2; });
  add([](ConvGraph& g) { g.shape.pad_begin = 0; });
  add([](ConvGraph& g) { g.shape.pad_end = 0; });
  std::set<std::string> texts;
  std::set<ConvGraph::Key> keys;
  for (const ConvGraph& graph : graphs) texts.insert(graph.text()), keys.insert(graph.key());
  EXPECT_EQ(texts.size(), graphs.size());
  EXPECT_EQ(keys.size(), graphs.size());
}

TEST(EngineChoices, ReadWhatTheyWriteAndNothingElse) {
  for (const char* text : {"62", "0:2=5", "62:2=5,14=-3,27=100"})
    EXPECT_EQ(EngineChoice::parse(text).text(), text);
  for (const char* text : {"", "x", "62:", "62:2", "62:2=", "62,2=5", "62:2=5,", "62:2=5 ", "62:2=5:14=3"})
    EXPECT_THROW(EngineChoice::parse(text), Error) << text;
}

TEST(PlanCaches, KeepWhatOtherProcessesAdd) {
  const TempFolder folder;
  const std::filesystem::path path = folder.path() / "new" / "plans.txt";
  PlanCache first(path), second(path);
  EXPECT_FALSE(first.find("device, graph"));
  first.put("device, graph", "62:2=5");
  second.put("device, other", "41");
  first.put("device, graph", "63");
  const PlanCache reader(path);
  EXPECT_EQ(reader.find("device, graph"), "63");
  EXPECT_EQ(reader.find("device, other"), "41");
  EXPECT_FALSE(reader.find("device"));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(path.parent_path()), {}), 1)
      << "temporary files";
}

TEST(PlanCaches, IgnoreFilesThatAreTornOrForeign) {
  const TempFolder folder;
  const std::filesystem::path path = folder.path() / "plans.txt";
  PlanCache(path).put("a", "1");
  PlanCache(path).put("b", "2");
  std::ifstream file(path, std::ios::binary);
  const std::string whole(std::istreambuf_iterator<char>(file), {});
  const auto reads = [&](const std::string& text) {
    folder.write("plans.txt", text);
    return PlanCache(path).find("a").has_value();
  };
  ASSERT_TRUE(reads(whole));
  for (std::size_t size = 0; size < whole.size(); ++size) EXPECT_FALSE(reads(whole.substr(0, size))) << size;
  EXPECT_FALSE(reads("another program\n" + whole.substr(whole.find('\n') + 1)));
  EXPECT_FALSE(reads(whole.substr(0, whole.find('\n')) + "\nno tab\nend 1\n"));
  PlanCache(path).put("c", "3");  // and replace them
  EXPECT_EQ(PlanCache(path).find("c"), "3");
}

TEST(PlanCaches, WorkWithoutAFile) {
  PlanCache none(std::nullopt);
  none.put("a", "1");
  EXPECT_EQ(none.find("a"), "1");
  PlanCache unwritable("/proc/none/plans.txt");
  unwritable.put("a", "1");
  EXPECT_EQ(unwritable.find("a"), "1");
}

}  // namespace
}  // namespace sgm::cudnn
