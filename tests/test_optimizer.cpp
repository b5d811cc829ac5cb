// The optimiser: the original's trace, and each part of a step on its own.

#include "sgm/optim/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "closed_form.h"
#include "devices.h"
#include "sgm/tensor/math.h"
#include "tiny_training.h"

namespace sgm {
namespace {

/// Parameters and nothing else.
class Vectors final : public ScoreNetwork {
 public:
  Var& add(const std::string& name, Context& context, const std::vector<double>& values,
           bool trainable = true, DType dtype = DType::f32) {
    const Shape shape{static_cast<std::int64_t>(values.size())};
    return add_parameter(name, Tensor::from_host(context, std::span<const double>(values), shape, dtype), {},
                         trainable);
  }
  Var& add(const std::string& name, Tensor value) { return add_parameter(name, std::move(value), {}); }
  Var forward(const Var& x, const Tensor&, const ForwardMode&) override { return x; }
};

/// Leaves a gradient on a parameter that is made when somebody asks for it, from one that waits; `made`
/// counts rows.
void give_late_gradient(Var& parameter, const Gradient& gradient, bool by_rows, std::int64_t& made) {
  const Tensor zero = Tensor::zeros(parameter.value().context(), {1}, DType::f64);
  record("linear", zero, {parameter}, [&, by_rows](const Gradient&, InputGradients& into) {
    const auto make = [gradient, &made](std::int64_t first, std::int64_t count) {
      made += count;
      const std::vector<double> all = gradient.tensor.to_host_f64();
      const std::int64_t row = gradient.tensor.numel() / gradient.tensor.shape()[0];
      return Gradient{
          Tensor::from_host(gradient.tensor.context(),
                            std::span(all).subspan(static_cast<std::size_t>(first * row),
                                                   static_cast<std::size_t>(count * row)),
                            gradient.tensor.shape().rank() == 1 ? Shape{count} : Shape{count, row},
                            gradient.tensor.dtype()),
          gradient.factor};
    };
    into.add_late(0, gradient.tensor.dtype(), {.holds = 0, .by_rows = by_rows, .make = make});
  }).backward(zero);
}

/// Leaves `gradient` on a parameter, as backward() of a linear function does.
void give_gradient(Var& parameter, const std::vector<double>& gradient) {
  Context& context = parameter.value().context();
  const Tensor grad = Tensor::from_host(context, std::span<const double>(gradient), parameter.shape(),
                                        parameter.value().dtype());
  const Tensor zero = Tensor::zeros(context, {1}, DType::f64);
  record("linear", zero, {parameter}, [grad](const Gradient&, InputGradients& into) {
    into.add(0, {grad});
  }).backward(zero);
}

OptimConfig plain_config() {
  OptimConfig config;
  config.lr = 0.1;
  config.warmup = 0;
  config.grad_clip = -1;
  return config;
}

using Optim = DeviceTest;
INSTANTIATE_TEST_SUITE_P(Devices, Optim, testing::ValuesIn(test_devices()), device_name);

TEST_P(Optim, FollowsTheOriginal) {
  const nlohmann::json trace = golden_file("optim.json").at("trace");
  Vectors network;
  Var& p = network.add("p", context(), {1.0, -2.0, 0.5});
  OptimConfig config;
  config.lr = 2e-4;
  config.warmup = 5;
  config.grad_clip = 1.0;
  Optimizer optimizer(network, config, 0.999);
  const double c[] = {3.0, 1.0, 10.0};
  const double one_bit = 0x1p-23 + 5e-9;  // of single precision in [1, 2); the file has nine digits
  ASSERT_EQ(trace.size(), 12u);
  for (const nlohmann::json& row : trace) {
    std::vector<double> gradient = p.value().to_host_f64();
    for (std::size_t i = 0; i < 3; ++i) gradient[i] *= 2.0 * c[i];
    give_gradient(p, gradient);
    optimizer.step();
    expect_all_near(p.value().to_host(), row.at("p").get<std::vector<double>>(), one_bit);
    expect_all_near(optimizer.slots()[0].ema.to_host(), row.at("ema").get<std::vector<double>>(), one_bit);
    if (HasFailure()) break;
  }
}

TEST_P(Optim, FirstUpdateMovesNothingUnderWarmUp) {
  Vectors network;
  Var& p = network.add("p", context(), {1.0, -2.0});
  OptimConfig config = plain_config();
  config.warmup = 4;
  Optimizer optimizer(network, config, 0.9);
  const std::vector<float> before = p.value().to_host();
  std::vector<double> rates;
  for (int step = 0; step < 6; ++step) {
    give_gradient(p, {1.0, 2.0});
    rates.push_back(optimizer.step().lr);
    if (step > 0) continue;
    EXPECT_EQ(p.value().to_host(), before);
    EXPECT_EQ(optimizer.slots()[0].ema.to_host(), before);
    // The moments do move: (1 - beta) g and (1 - beta) g^2.
    EXPECT_NEAR(optimizer.slots()[0].m.to_host()[1], 0.2, 1e-7);
    EXPECT_NEAR(optimizer.slots()[0].v.to_host()[1], 0.004, 1e-9);
  }
  const std::vector<double> expected = {0.0, 0.025, 0.05, 0.075, 0.1, 0.1};
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_DOUBLE_EQ(rates[i], expected[i]) << i;
  EXPECT_EQ(optimizer.completed_steps(), 6);
}

TEST_P(Optim, ClipsByTheGlobalNorm) {
  // With no memory and eps far above the gradients Adam is p -= lr g' / eps, which shows the clipped g'.
  struct Row {
    double size, clip;
  };
  for (const Row& row : {Row{100.0, 1.0}, Row{1.0, 1.0}, Row{0.5, 1.0}, Row{100.0, 2.5}, Row{100.0, -1.0},
                         Row{1e-9, 1.0}, Row{0.0, 1.0}, Row{1e25, 1.0}}) {
    Vectors network;
    Var& a = network.add("a", context(), {0.0, 0.0}, true, DType::f64);
    Var& b = network.add("b", context(), {0.0}, true, DType::f64);
    OptimConfig config = plain_config();
    config.lr = config.eps = 1e30;
    config.beta1 = config.beta2 = 0.0;
    config.grad_clip = row.clip;
    Optimizer optimizer(network, config, 0.0);
    // 2, 3 and 6 have norm 7.
    give_gradient(a, {row.size * 2 / 7, row.size * -3 / 7});
    give_gradient(b, {row.size * 6 / 7});
    EXPECT_NEAR(optimizer.step().grad_norm, row.size, 1e-12 * row.size);
    const double factor = row.clip < 0 ? 1.0 : std::min(1.0, row.clip / (row.size + 1e-6));
    const double expected[] = {-2, 3, -6};
    const std::vector<double> moved = {a.value().to_host_f64()[0], a.value().to_host_f64()[1],
                                       b.value().item()};
    for (std::size_t i = 0; i < 3; ++i)
      EXPECT_NEAR(moved[i], factor * row.size * expected[i] / 7, 1e-6 * factor * row.size)
          << row.size << ' ' << row.clip << ' ' << i;
  }
}

TEST_P(Optim, WeightDecayIsAddedToTheGradient) {
  Vectors decayed, plain;
  Var& p = decayed.add("p", context(), {1.0, -2.0}, true, DType::f64);
  Var& q = plain.add("p", context(), {1.0, -2.0}, true, DType::f64);
  OptimConfig config = plain_config();
  Optimizer without(plain, config, 0.9);
  config.weight_decay = 0.3;
  Optimizer with(decayed, config, 0.9);
  for (int step = 0; step < 3; ++step) {
    give_gradient(p, {0.5, 0.25});
    const std::vector<double> at = q.value().to_host_f64();
    give_gradient(q, {0.5 + 0.3 * at[0], 0.25 + 0.3 * at[1]});
    with.step();
    without.step();
    for (std::size_t i = 0; i < 2; ++i)
      EXPECT_NEAR(p.value().to_host_f64()[i], q.value().to_host_f64()[i], 1e-14);
  }
}

TEST_P(Optim, AGradientThatIsNotFiniteChangesNothing) {
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
                           -std::numeric_limits<double>::infinity()}) {
    Vectors network;
    Var& a = network.add("a", context(), {1.0, -2.0});
    Var& b = network.add("b", context(), {3.0});
    Optimizer optimizer(network, plain_config(), 0.9);
    give_gradient(a, {0.1, 0.2});
    give_gradient(b, {0.3});
    optimizer.step();
    const RunState before = state_of(network, optimizer);
    give_gradient(a, {0.1, 0.2});
    give_gradient(b, {bad});
    EXPECT_FALSE(std::isfinite(optimizer.step().grad_norm));
    expect_same_bits(state_of(network, optimizer), before);
    EXPECT_EQ(optimizer.completed_steps(), 2);  // the schedule goes on
    // The bad gradient is gone: the next step is as good as any.
    give_gradient(a, {0.1, 0.2});
    give_gradient(b, {0.3});
    EXPECT_NEAR(optimizer.step().grad_norm, std::sqrt(0.14), 1e-7);
    EXPECT_EQ(optimizer.completed_steps(), 3);
    EXPECT_LT(b.value().to_host()[0], before.at("model.b")[0]);
  }
}

TEST_P(Optim, LeavesParametersWithoutGradientAlone) {
  Vectors network;
  Var& used = network.add("used", context(), {1.0});
  network.add("unused", context(), {2.0});
  network.add("frozen", context(), {3.0}, false);
  OptimConfig config = plain_config();
  config.weight_decay = 0.1;
  Optimizer optimizer(network, config, 0.9);
  ASSERT_EQ(optimizer.slots().size(), 2u);  // what is frozen has no moments and no average
  const RunState before = state_of(network, optimizer);
  for (int step = 0; step < 2; ++step) {
    give_gradient(used, {1.0});
    optimizer.step();
  }
  const std::vector<std::string> changed = {"adam.m.used", "adam.v.used", "ema.used", "model.used"};
  EXPECT_EQ(differing(before, state_of(network, optimizer)), changed);
}

TEST_P(Optim, GradientsAreClearedByAStep) {
  Vectors network;
  Var& p = network.add("p", context(), {1.0});
  Optimizer optimizer(network, plain_config(), 0.9);
  give_gradient(p, {2.0});
  give_gradient(p, {3.0});
  EXPECT_NEAR(optimizer.step().grad_norm, 5.0, 1e-6);
  EXPECT_FALSE(p.grad().defined());
  EXPECT_EQ(optimizer.step().grad_norm, 0.0);
}

/// Two steps of parameters of which three may have late gradients, then everything that a step changes.
std::vector<std::vector<float>> after_two_steps(Context& context, bool late) {
  const Shape shapes[] = {{5}, {300, 1024}, {3, 50}, {7, 3000}, {70, 130}, {9}};
  context.set_late_gradients(late);
  Vectors network;
  std::vector<Var*> parameters;
  std::uint64_t seed = 0;
  for (const Shape& shape : shapes)
    parameters.push_back(
        &network.add("p" + std::to_string(seed), normal(context, shape, NoiseKey{.seed = seed++}, 1.0)));
  OptimConfig config = plain_config();
  config.grad_clip = 1.0;
  Optimizer optimizer(network, config, 0.9);
  std::vector<std::vector<float>> all;
  for (int step = 0; step < 2; ++step) {
    std::int64_t made = 0;
    for (std::size_t i = 0; i + 1 < std::size(shapes); ++i) {  // the last has none
      const Gradient gradient{normal(context, shapes[i], NoiseKey{.seed = seed++}, 1.0), 0.5};
      give_late_gradient(*parameters[i], gradient, i % 2 == 1, made);
      EXPECT_EQ(parameters[i]->late_gradient() != nullptr, late);
    }
    EXPECT_EQ(made, late ? 0 : 385);
    all.push_back({static_cast<float>(optimizer.step().grad_norm)});
    EXPECT_EQ(made, late ? 2 * 385 : 385) << "once for the norm, once for the step";
    EXPECT_EQ(parameters[0]->late_gradient(), nullptr);
  }
  for (const Optimizer::Slot& slot : optimizer.slots())
    for (const Tensor& tensor : {slot.parameter.var->value(), slot.m, slot.v, slot.ema})
      all.push_back(tensor.to_host());
  context.set_late_gradients(false);
  return all;
}

TEST_P(Optim, LateGradientsInPartsChangeNoBit) {
  EXPECT_EQ(after_two_steps(context(), true), after_two_steps(context(), false));
}

TEST_P(Optim, AverageRampsUpToItsRate) {
  EXPECT_DOUBLE_EQ(ema_decay(0.999, 1), 2.0 / 11.0);
  EXPECT_DOUBLE_EQ(ema_decay(0.999, 8989), 8990.0 / 8999.0);
  EXPECT_LT(ema_decay(0.999, 8989), 0.999);
  EXPECT_DOUBLE_EQ(ema_decay(0.999, 8990), 0.999);
  EXPECT_DOUBLE_EQ(ema_decay(0.999, 1'000'000), 0.999);
  EXPECT_EQ(ema_decay(0.0, 5), 0.0);

  // Without memory the average is the weights.
  Vectors network;
  Var& p = network.add("p", context(), {1.0, 2.0});
  Optimizer optimizer(network, plain_config(), 0.0);
  for (int step = 0; step < 3; ++step) {
    give_gradient(p, {1.0, -1.0});
    optimizer.step();
    EXPECT_EQ(optimizer.slots()[0].ema.to_host(), p.value().to_host());
  }
}

TEST_P(Optim, ExchangingTheAveragesTwiceIsNothing) {
  Vectors network;
  Var& p = network.add("p", context(), {1.0, -2.0});
  Optimizer optimizer(network, plain_config(), 0.9);
  give_gradient(p, {1.0, 1.0});
  optimizer.step();
  const RunState before = state_of(network, optimizer);
  ASSERT_NE(before.at("ema.p"), before.at("model.p"));
  optimizer.swap_ema();
  EXPECT_EQ(p.value().to_host(), before.at("ema.p"));
  EXPECT_EQ(optimizer.slots()[0].ema.to_host(), before.at("model.p"));
  optimizer.swap_ema();
  expect_same_bits(state_of(network, optimizer), before);
}

}  // namespace
}  // namespace sgm
