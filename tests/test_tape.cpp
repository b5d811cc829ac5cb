// The tape: what is recorded, what reaches the leaves, what is freed and when.

#include <gtest/gtest.h>

#include "check.h"
#include "expect_error.h"
#include "sgm/autograd/ops.h"
#include "sgm/tensor/math.h"

namespace sgm {
namespace {

class Tape : public testing::Test {
 protected:
  Var leaf(const std::vector<double>& values, bool requires_grad = true) {
    return Var(tensor_of(*context_, values, {std::ssize(values)}, DType::f64), requires_grad);
  }
  Tensor tensor(const std::vector<double>& values) {
    return tensor_of(*context_, values, {std::ssize(values)}, DType::f64);
  }
  /// x, with a hook that runs while the tape unwinds.
  static Var hooked(const Var& x, std::function<void(const std::vector<bool>&)> hook) {
    return record("hooked", x.value(), {x}, [hook](const Gradient& dy, InputGradients& into) {
      hook({into.wanted(0)});
      into.add(0, dy);
    });
  }
  static std::vector<double> grad(const Var& v) { return v.grad().to_host_f64(); }

  using Numbers = std::vector<double>;
  std::unique_ptr<Context> context_ = create_context("cpu", 1);
};

TEST_F(Tape, RecordsNothingWhereNothingNeedsAGradient) {
  const Var x = leaf({1.0, 2.0}, false), y = add(affine(x, 2.0), x);
  EXPECT_FALSE(x.requires_grad());
  EXPECT_FALSE(y.requires_grad());
  EXPECT_EQ(y.value().to_host_f64(), (Numbers{3.0, 6.0}));
  expect_error({"backward", "requires a gradient"}, [&] { y.backward(tensor({1.0, 1.0})); });
  expect_error({"grad", "require"}, [&] { x.grad(); });
}

TEST_F(Tape, AddsUpWhatReachesALeafOnSeveralPaths) {
  const Var x = leaf({1.0, -2.0});
  const Var y = add(add(affine(x, 2.0), x, 3.0, 5.0), add(x, x, 7.0, 11.0));  // 6 + 5 + 7 + 11
  y.backward(tensor({1.0, 10.0}));
  EXPECT_EQ(grad(x), (Numbers{29.0, 290.0}));
}

TEST_F(Tape, AddsUpOverBackwardsUntilZeroed) {
  Var x = leaf({1.0, 2.0});
  EXPECT_FALSE(x.grad().defined());
  affine(x, 2.0).backward(tensor({1.0, 1.0}));
  affine(x, 3.0).backward(tensor({1.0, 0.5}));
  EXPECT_EQ(grad(x), (Numbers{5.0, 3.5}));
  const Tensor kept = x.grad();
  affine(x, 1.0).backward(tensor({1.0, 1.0}));
  EXPECT_EQ(kept.to_host_f64(), (Numbers{5.0, 3.5})) << "a gradient that was handed out has changed";
  x.zero_grad();
  EXPECT_FALSE(x.grad().defined());
  affine(x, 4.0).backward(tensor({1.0, 1.0}));
  EXPECT_EQ(grad(x), (Numbers{4.0, 4.0}));
}

TEST_F(Tape, LeavesTheGivenGradientAsItIs) {
  const Var a = leaf({1.0, 2.0}), b = leaf({3.0, 4.0});
  const Tensor given = tensor({1.0, -1.0});
  add(a, b).backward(given);
  add(a, b).backward(given);
  EXPECT_EQ(given.to_host_f64(), (Numbers{1.0, -1.0}));
  EXPECT_EQ(grad(a), (Numbers{2.0, -2.0}));
  EXPECT_EQ(grad(b), (Numbers{2.0, -2.0}));
}

TEST_F(Tape, IsShortestAtALeafItself) {
  const Var x = leaf({1.0, 2.0});
  x.backward(tensor({3.0, 4.0}));
  EXPECT_EQ(grad(x), (Numbers{3.0, 4.0}));
  const Var leaves[] = {x};
  EXPECT_EQ(vjp(x, tensor({5.0, 6.0}), leaves)[0].to_host_f64(), (Numbers{5.0, 6.0}));
  EXPECT_EQ(grad(x), (Numbers{3.0, 4.0}));
}

TEST_F(Tape, SharesAPlaceAmongCopies) {
  const Var x = leaf({1.0}), copy = x;
  add(x, copy, 2.0, 3.0).backward(tensor({1.0}));
  EXPECT_EQ(grad(x), (Numbers{5.0}));
  EXPECT_EQ(grad(copy), (Numbers{5.0}));
}

TEST_F(Tape, AgreesWithDifferencesOnATangledGraph) {
  const Function f = [](std::span<const Var> v) {
    Var a = activate(v[0], Activation::swish), b = add(v[1], a, 0.3, -0.7), c = a;
    for (int i = 0; i < 5; ++i) {
      c = add(activate(c, Activation::swish), b, 1.1, 0.2);
      b = add(activate(b, Activation::elu), v[0], 0.5, 0.1);
    }
    return add(c, b);
  };
  expect_gradients(*context_, f, {{{7}, random_values(7, 1)}, {{7}, random_values(7, 2)}});
}

TEST_F(Tape, GivesVjpTheGradientsOfBackwardAndTheLeavesNone) {
  const Var x = leaf({1.0, -2.0}), w = leaf({0.5, 0.25}), unused = leaf({9.0, 9.0, 9.0});
  const auto f = [&] { return add(activate(x, Activation::swish), add(w, x, 2.0, -1.0)); };
  const Tensor u = tensor({1.0, 3.0});
  const Var leaves[] = {w, x, unused};
  const std::vector<Tensor> products = vjp(f(), u, leaves);
  for (const Var& v : leaves) EXPECT_FALSE(v.grad().defined());
  f().backward(u);
  EXPECT_EQ(products[0].to_host_f64(), grad(w));
  EXPECT_EQ(products[1].to_host_f64(), grad(x));
  EXPECT_EQ(products[2].to_host_f64(), (Numbers{0.0, 0.0, 0.0}));
  EXPECT_FALSE(unused.grad().defined());
}

TEST_F(Tape, ComputesOnlyTheGradientsThatAreWanted) {
  const Var x = leaf({1.0}), w = leaf({2.0}), constant = leaf({3.0}, false);
  std::vector<std::vector<bool>> seen;
  bool hooked_w = false;
  const auto f = [&] {
    const Var v = hooked(w, [&](const auto&) { hooked_w = true; });
    return record("sum", x.value(), {x, v, constant, Var()},
                  [&seen](const Gradient& dy, InputGradients& into) {
                    seen.push_back({into.wanted(0), into.wanted(1), into.wanted(2), into.wanted(3)});
                    into.add(0, dy);
                    into.add(1, dy);
                  });
  };
  const Var only_x[] = {x};
  vjp(f(), tensor({1.0}), only_x);
  EXPECT_FALSE(hooked_w);
  f().backward(tensor({1.0}));
  EXPECT_TRUE(hooked_w);
  EXPECT_EQ(seen, (std::vector<std::vector<bool>>{{true, false, false, false}, {true, true, false, false}}));
}

TEST_F(Tape, KeepsFactorsApartFromTensors) {
  const Var x = leaf({1.0, 2.0});
  std::vector<double> factors;
  const Var y = record("spy", x.value(), {x}, [&](const Gradient& dy, InputGradients& into) {
    factors.push_back(dy.factor);
    into.add(0, dy);
  });
  affine(affine(y, 2.0), 0.25).backward(tensor({1.0, 3.0}));
  EXPECT_EQ(factors, (Numbers{0.5}));
  EXPECT_EQ(x.gradient().factor, 0.5);
  EXPECT_EQ(x.gradient().value().to_host_f64(), (Numbers{0.5, 1.5}));
  affine(x, 2.0).backward(tensor({1.0, 1.0}));
  EXPECT_EQ(grad(x), (Numbers{2.5, 3.5}));
}

TEST_F(Tape, HandsContributorsWhatOthersContributed) {
  Var x = leaf({1.0, 2.0});
  std::vector<std::size_t> taken;
  const auto greedy = [&](const Var& input, std::size_t most) {
    return record("greedy", input.value(), {input}, [&taken, most](const Gradient& dy, InputGradients& into) {
      std::vector<Gradient> others = into.take_others(0, most);
      taken.push_back(others.size());
      for (Gradient& other : others) into.add(0, std::move(other));
      into.add(0, dy);
    });
  };
  for (const std::size_t most : {3, 1}) {
    taken.clear(), x.zero_grad();
    const Var y = affine(x, 3.0);  // not a leaf, read by three ops
    const Var a = greedy(y, most), b = greedy(y, 3), c = greedy(y, 3);
    add(add(a, b, 1.0, 10.0), c, 1.0, 100.0).backward(tensor({1.0, 1.0}));
    // The last of them two terms, merged where there is room for one.
    EXPECT_EQ(taken, (std::vector<std::size_t>{0, 1, most == 1 ? 1u : 2u}));
    EXPECT_EQ(grad(x), (Numbers{333.0, 333.0}));
  }
  // The same input twice: neither occurrence is the last.
  taken.clear();
  const Var z = affine(x, 3.0);
  const Var twice = record("twice", z.value(), {z, z}, [&](const Gradient& dy, InputGradients& into) {
    taken.push_back(into.take_others(0, 3).size());
    into.add(0, dy);
    into.add(1, dy);
  });
  twice.backward(tensor({1.0, 1.0}));
  EXPECT_EQ(taken, (std::vector<std::size_t>{0}));
}

TEST_F(Tape, MakesLateGradientsWhenTheyAreAskedFor) {
  Var x = leaf({1.0, 2.0, 3.0, 4.0});  // 32 bytes
  int made = 0;
  const auto backward = [&](std::size_t holds, const Var& input) {
    record("late", input.value(), {input}, [&, holds](const Gradient& dy, InputGradients& into) {
      into.add_late(0, DType::f64,
                    {.holds = holds, .make = [&made, dy](std::int64_t first, std::int64_t count) {
                       EXPECT_EQ(first, 0);
                       EXPECT_EQ(count, 4);
                       ++made;
                       return Gradient{dy.tensor, 2.0};
                     }});
    }).backward(tensor({1.0, 1.0, 1.0, 1.0}));
  };
  const Numbers twos(4, 2.0), fours(4, 4.0);
  const auto expect_at_hand = [&](const Numbers& expected) {
    EXPECT_EQ(x.late_gradient(), nullptr);
    const int before = made;
    EXPECT_EQ(grad(x), expected);
    EXPECT_EQ(made, before);
    made = 0, x.zero_grad();
  };
  backward(8, x);
  EXPECT_EQ(made, 1) << "nobody wanted it late";
  expect_at_hand(twos);

  context_->set_late_gradients(true);
  backward(25, x);
  EXPECT_EQ(made, 1) << "what it is made of takes as much room";
  expect_at_hand(twos);
  backward(8, affine(x, 1.0));
  EXPECT_EQ(made, 1) << "not a leaf";
  expect_at_hand(twos);

  backward(24, x);
  EXPECT_EQ(made, 0);
  ASSERT_NE(x.late_gradient(), nullptr);
  EXPECT_EQ(x.gradient().value().to_host_f64(), twos);
  EXPECT_EQ(x.gradient().value().to_host_f64(), twos);
  EXPECT_EQ(made, 2);
  EXPECT_EQ(grad(x), twos);
  expect_at_hand(twos);

  backward(8, x), backward(8, x);
  EXPECT_EQ(made, 2) << "sums are kept";
  expect_at_hand(fours);
  backward(8, x);
  x.zero_grad();
  EXPECT_FALSE(x.grad().defined());
  EXPECT_EQ(made, 0);
}

TEST_F(Tape, MakesLateGradientsOfLinearLayersByRows) {
  context_->set_late_gradients(true);
  const Var x(normal(*context_, {2, 300}, NoiseKey{.seed = 1}, 1.0), false);
  const Var w(normal(*context_, {40, 300}, NoiseKey{.seed = 2}, 1.0), true);
  affine(linear(x, w, {}), 0.5).backward(normal(*context_, {2, 40}, NoiseKey{.seed = 3}, 1.0));
  ASSERT_NE(w.late_gradient(), nullptr);
  EXPECT_TRUE(w.late_gradient()->by_rows);
  const Gradient some = w.late_gradient()->make(7, 11);
  EXPECT_EQ(some.tensor.shape(), Shape({11, 300}));
  const std::vector<double> all = grad(w), part = some.value().to_host_f64();
  EXPECT_EQ(part, Numbers(all.begin() + 7 * 300, all.begin() + 18 * 300));
}

TEST_F(Tape, MakesDeferredGradientsWhereNobodyTakesThem) {
  const int key = 0, other_key = 0;
  int made = 0, taken = 0;
  const auto deferring = [&](const Var& input) {
    return record("deferring", input.value(), {input}, [&](const Gradient& dy, InputGradients& into) {
      into.add_deferred(0, &key, dy, [&made, dy] {
        ++made;
        return Gradient{dy.tensor, 10.0 * dy.factor};
      });
    });
  };
  const auto taking = [&](const Var& input, const int* by) {
    return record("taking", input.value(), {input}, [&, by](const Gradient& dy, InputGradients& into) {
      const Gradient from = into.take_deferred(0, by);
      if (from.defined()) ++taken, into.add(0, {from.tensor, 10.0 * from.factor});
      into.add(0, dy);
    });
  };
  const auto greedy = [&](const Var& input) {
    return record("greedy", input.value(), {input}, [](const Gradient& dy, InputGradients& into) {
      for (Gradient& term : into.take_others(0, 3)) into.add(0, std::move(term));
      into.add(0, dy);
    });
  };
  Var x = leaf({1.0, 2.0});
  struct Case {
    const char* what;
    std::function<Var(const Var&)> sum;  // of two ops; the way back begins with the second
    int made, taken;
  };
  const Case cases[] = {
      {"taken", [&](const Var& y) { return add(taking(y, &key), deferring(y)); }, 0, 1},
      {"too late", [&](const Var& y) { return add(deferring(y), taking(y, &key)); }, 1, 0},
      {"another's", [&](const Var& y) { return add(taking(y, &other_key), deferring(y)); }, 1, 0},
      {"among the others", [&](const Var& y) { return add(greedy(y), deferring(y)); }, 1, 0}};
  for (const bool of_leaf : {false, true})
    for (const Case& each : cases) {
      SCOPED_TRACE(std::string(each.what) + (of_leaf ? ", of a leaf" : ""));
      made = taken = 0;
      x.zero_grad();
      each.sum(of_leaf ? x : affine(x, 3.0)).backward(tensor({1.0, 1.0}));
      // The gradient of a leaf is added up at once.
      EXPECT_EQ(made, of_leaf ? 1 : each.made);
      EXPECT_EQ(taken, of_leaf ? 0 : each.taken);
      EXPECT_EQ(grad(x), of_leaf ? (Numbers{11.0, 11.0}) : (Numbers{33.0, 33.0}));
    }
}

TEST_F(Tape, SharesOneGradientBetweenSlices) {
  const Var x = leaf({1.0, 2.0, 3.0});
  const Var all = affine(x, 2.0);
  const auto slice = [&](std::int64_t i) {
    const Tensor value = tensor({all.value().to_host_f64()[static_cast<std::size_t>(i)]});
    return record("slice", value, {all}, [i](const Gradient& dy, InputGradients& into) {
      into.shared(0, DType::f64).data<double>()[i] = dy.value().item();
    });
  };
  add(slice(0), slice(2), 5.0, 7.0).backward(tensor({1.0}));
  EXPECT_EQ(grad(x), (Numbers{10.0, 0.0, 14.0}));
}

TEST_F(Tape, CannotBeUnwoundTwice) {
  const Var x = leaf({1.0, 2.0}), middle = activate(x, Activation::swish), y = affine(middle, 2.0),
            z = affine(middle, 3.0);
  const Tensor u = tensor({1.0, 1.0});
  y.backward(u);
  const Numbers once = grad(x);
  expect_error({"affine", "freed"}, [&] { y.backward(u); });
  expect_error({"activate", "freed"}, [&] { z.backward(u); });
  const Var leaves[] = {x};
  expect_error({"freed"}, [&] { vjp(y, u, leaves); });
  EXPECT_EQ(grad(x), once);
}

TEST_F(Tape, NamesWhatDoesNotFit) {
  const Var x = leaf({1.0, 2.0}), y = affine(x, 2.0), constant = leaf({1.0, 2.0}, false);
  expect_error({"backward", "[3]", "[2]"}, [&] { y.backward(tensor({1.0, 1.0, 1.0})); });
  expect_error({"leaves"}, [&] { y.grad(); });
  expect_error({"vjp", "no leaves"}, [&] { vjp(y, tensor({1.0, 1.0}), {}); });
  const Var leaves[] = {constant};
  expect_error({"vjp", "require a gradient"}, [&] { vjp(y, tensor({1.0, 1.0}), leaves); });
  const Var broken = record("broken", x.value(), {x}, [&](const Gradient&, InputGradients& into) {
    into.add(0, {tensor({1.0, 2.0, 3.0})});
  });
  expect_error({"broken", "[3]", "[2]"}, [&] { broken.backward(tensor({1.0, 1.0})); });
}

TEST_F(Tape, ConvertsGradientsWhereTypesChange) {
  const Var x = Var(Tensor::full(*context_, {2}, 1.0, DType::f32), true);
  const Var y = cast(affine(cast(x, DType::bf16), 2.0), DType::f64);
  y.backward(tensor({1.0, 3.0}));
  EXPECT_EQ(x.grad().dtype(), DType::f32);
  EXPECT_EQ(grad(x), (Numbers{2.0, 6.0}));
}

TEST_F(Tape, IsFreedWhileItUnwinds) {
  constexpr std::int64_t kSize = 1 << 14;
  constexpr std::size_t kBytes = kSize * sizeof(double);
  constexpr int kDepth = 20;
  std::vector<std::size_t> in_use;
  const auto note = [&](const auto&) { in_use.push_back(context_->memory().in_use); };
  const Var x(Tensor::zeros(*context_, {kSize}, DType::f64), true);
  const Tensor u = Tensor::zeros(*context_, {kSize}, DType::f64);
  const std::size_t before = context_->memory().in_use;
  {
    Var y = x;
    for (int i = 0; i < kDepth; ++i) y = hooked(activate(y, Activation::swish), note);
    EXPECT_EQ(context_->memory().in_use, before + kDepth * kBytes) << "one input is kept for each op";
    y.backward(u);
    ASSERT_EQ(in_use.size(), static_cast<std::size_t>(kDepth));
    for (int i = 2; i < kDepth; ++i)
      EXPECT_EQ(in_use[static_cast<std::size_t>(i)] + kBytes, in_use[static_cast<std::size_t>(i) - 1]);
    EXPECT_EQ(context_->memory().in_use, before + 2 * kBytes) << "the output and the gradient remain";
  }
  EXPECT_EQ(context_->memory().in_use, before + kBytes) << "the gradient remains";
}

TEST_F(Tape, KeepsNothingWithoutGradients) {
  const Var x = leaf(random_values(1 << 14, 1), false);
  const std::size_t before = context_->memory().in_use, bytes = x.value().bytes();
  Var y = x;
  for (int i = 0; i < 20; ++i) y = activate(y, Activation::swish);
  EXPECT_EQ(context_->memory().in_use, before + bytes);
}

TEST_F(Tape, IsFreedWhenItIsDroppedUnused) {
  const Var x = leaf(random_values(1 << 14, 1));
  const std::size_t before = context_->memory().in_use;
  {
    Var y = x;
    for (int i = 0; i < 20; ++i) y = activate(y, Activation::swish);
  }
  EXPECT_EQ(context_->memory().in_use, before);
}

TEST_F(Tape, TakesThousandsOfOps) {
  const Var x = leaf({1.0});
  Var y = x;
  for (int i = 0; i < 5000; ++i) y = affine(y, 1.0, 0.5);
  y.backward(tensor({2.0}));
  EXPECT_EQ(grad(x), (Numbers{2.0}));
}

}  // namespace
}  // namespace sgm
