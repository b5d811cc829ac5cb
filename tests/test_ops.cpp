// Every differentiable op, row by row of the op table: values against naive loops, gradients against adjoints
// and difference quotients, f32 and bf16 against f64, NaN, empty batches.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <numeric>
#include <set>

#include "backend/cpu/winograd.h"
#include "devices.h"
#include "op_table.h"
#include "sgm/autograd/ops.h"

namespace sgm {
namespace {

// Seconds are spent on the networks' shapes only where they can matter: differences of f take many values.
constexpr std::int64_t kManyElements = 1 << 13;

std::int64_t elements_of(const OpRow& row) {
  std::int64_t sum = 0;
  for (const OpInput& input : row.inputs) sum += input.shape.numel();
  return sum;
}

std::vector<DType> types_of(const OpRow& row, DType dtype) {
  std::vector<DType> types;
  for (const OpInput& input : row.inputs)
    types.push_back(input.role == Role::activation || dtype == DType::f64 ? dtype : DType::f32);
  return types;
}

/// The row's inputs, representable in the element types that the op reads beside activations in `dtype`.
std::vector<Values> inputs_of(const OpRow& row, DType dtype) {
  const std::vector<DType> types = types_of(row, dtype);
  std::vector<Values> inputs;
  for (std::size_t i = 0; i < row.inputs.size(); ++i) {
    const OpInput& input = row.inputs[i];
    const std::vector<double> values =
        random_values(input.shape.numel(), static_cast<std::uint32_t>(i), input.mean, input.std);
    inputs.push_back({input.shape, rounded(values, input.role == Role::filter ? dtype : types[i])});
  }
  return inputs;
}

template <class Body>
void for_each_row(Body&& body) {
  for (const OpRow& row : op_table()) {
    SCOPED_TRACE(row.name);
    body(row);
  }
}

// ---- in f64, the CPU's ------------------------------------------------------------------------------------

/// One thread is the faster choice for many small evaluations.
template <class Body>
void for_each_row_in_double(int threads, Body&& body) {
  const auto context = create_context("cpu", threads);
  for_each_row([&](const OpRow& row) { body(*context, row); });
}

TEST(OpsInDouble, EqualTheirDefinitions) {
  for_each_row_in_double(2, [](Context& context, const OpRow& row) {
    if (row.costly) return;
    const std::vector<Values> inputs = inputs_of(row, DType::f64);
    const Evaluation y = evaluate(context, row.build, inputs, types_of(row, DType::f64));
    const Values expected = row.naive(inputs);
    EXPECT_EQ(y.output.shape, expected.shape);
    EXPECT_EQ(y.dtype, DType::f64);
    expect_close(y.output.data, expected.data, {1e-13, 1e-12}, "output");
  });
}

TEST(OpsInDouble, HaveDerivativesAsGradients) {
  for_each_row_in_double(1, [](Context& context, const OpRow& row) {
    if (row.costly) return;
    const std::vector<Values> inputs = inputs_of(row, DType::f64);
    if (row.affine) {
      for (std::size_t i = 0; i < inputs.size(); ++i) expect_adjoint(context, row.build, inputs, i);
    } else {
      expect_gradients(context, row.build, inputs, elements_of(row) > kManyElements ? 1 : 3);
    }
  });
}

// ---- in storage types, on every device --------------------------------------------------------------------

using Ops = DeviceTest;
INSTANTIATE_TEST_SUITE_P(Devices, Ops, testing::ValuesIn(test_devices()), device_name);

/// Values and gradients in `dtype` against the CPU's in f64 on the same numbers.
void expect_close_to_f64(Context& context, const OpRow& row, DType dtype, const Tolerance& value,
                         const Tolerance& gradient) {
  const auto cpu = create_context("cpu", 2);
  const std::vector<Values> inputs = inputs_of(row, dtype);
  const Evaluation without_tape = evaluate(context, row.build, inputs, types_of(row, dtype));
  const std::vector<double> cotangent =
      rounded(random_values(without_tape.output.shape.numel(), 1000), without_tape.dtype);
  const Evaluation y = evaluate(context, row.build, inputs, types_of(row, dtype), &cotangent);
  const Evaluation expected = evaluate(*cpu, row.build, inputs, types_of(row, DType::f64), &cotangent);
  expect_close(y.output.data, expected.output.data, value, "output");
  // Where no gradient is wanted, backends may prepare weights differently.
  expect_close(without_tape.output.data, expected.output.data, value, "output without the tape");
  for (std::size_t i = 0; i < inputs.size(); ++i)
    expect_close(y.grads[i], expected.grads[i], gradient, "gradient of input " + std::to_string(i));
  if (!row.costly || !context.is_cpu()) return;
  const Shape &x = inputs[0].shape, &w = inputs[1].shape, &out = y.output.shape;
  const ConvShape conv{x[0], x[1], x[2], x[3], w[0], w[1], w[2], out[1], out[2], 1, 0, 0};
  EXPECT_TRUE(winograd::suits(conv, dtype)) << "too small a row for the path that it is there for";
}

TEST_P(Ops, F32IsCloseToF64) {
  for_each_row([&](const OpRow& row) { expect_close_to_f64(context(), row, DType::f32, row.f32, row.f32); });
}

TEST_P(Ops, BF16IsCloseToF64) {
  for_each_row([&](const OpRow& row) {
    if (row.bf16) expect_close_to_f64(context(), row, DType::bf16, row.bf16_value, row.bf16_gradient);
  });
}

/// A few elements that matter most: the ends and the middle.
std::set<std::size_t> probes(std::size_t size) { return {0, size / 2, size - 1}; }

/// Wherever a large change of one input element is seen, NaN in its place must be seen too.
TEST_P(Ops, NanReachesEverythingThatItsElementInfluences) {
  for_each_row([&](const OpRow& row) {
    if (elements_of(row) > kManyElements) return;
    const std::vector<DType> types = types_of(row, DType::f32);
    const std::vector<Values> inputs = inputs_of(row, DType::f32);
    const std::vector<double> before = evaluate(context(1), row.build, inputs, types).output.data;
    for (std::size_t which = 0; which < inputs.size(); ++which)
      for (const std::size_t at : probes(inputs[which].data.size())) {
        std::vector<Values> changed = inputs, poisoned = inputs;
        changed[which].data[at] += 10.0;
        poisoned[which].data[at] = std::numeric_limits<double>::quiet_NaN();
        const std::vector<double> after = evaluate(context(1), row.build, changed, types).output.data;
        const std::vector<double> nan = evaluate(context(1), row.build, poisoned, types).output.data;
        for (std::size_t i = 0; i < before.size(); ++i)
          ASSERT_TRUE(after[i] == before[i] || std::isnan(nan[i]))
              << "output " << i << " is " << nan[i] << " although element " << at << " of input " << which
              << " is NaN";
      }
  });
}

TEST_P(Ops, NanInACotangentReachesTheGradients) {
  for_each_row([&](const OpRow& row) {
    if (elements_of(row) > kManyElements) return;
    const std::vector<DType> types = types_of(row, DType::f32);
    const std::vector<Values> inputs = inputs_of(row, DType::f32);
    const std::size_t size = evaluate(context(1), row.build, inputs, types).output.data.size();
    const std::vector<double> cotangent = random_values(static_cast<std::int64_t>(size), 1000);
    const auto gradients = [&](std::size_t at, double value) {
      std::vector<double> other = cotangent;
      other[at] = value;
      return evaluate(context(1), row.build, inputs, types, &other).grads;
    };
    for (const std::size_t at : probes(size)) {
      const auto before = gradients(at, cotangent[at]), after = gradients(at, cotangent[at] + 10.0),
                 nan = gradients(at, std::numeric_limits<double>::quiet_NaN());
      for (std::size_t which = 0; which < inputs.size(); ++which)
        for (std::size_t i = 0; i < before[which].size(); ++i)
          ASSERT_TRUE(after[which][i] == before[which][i] || std::isnan(nan[which][i]))
              << "element " << i << " of gradient " << which << " is " << nan[which][i]
              << " although element " << at << " of the output's gradient is NaN";
    }
  });
}

TEST_P(Ops, AnEmptyBatchGivesAnEmptyOutputAndNoGradientOrIsRefused) {
  for_each_row([&](const OpRow& row) {
    OpRow empty = row;
    for (OpInput& input : empty.inputs) {
      if (input.role == Role::parameter || input.role == Role::filter) continue;
      std::vector<std::int64_t> sizes(input.shape.begin(), input.shape.end());
      sizes[0] = 0;
      input.shape = Shape(sizes);
    }
    for (const DType dtype : {DType::f64, DType::f32}) {
      if (dtype == DType::f64 && !context(1).is_cpu()) continue;
      try {
        const std::vector<double> none;
        const Evaluation y =
            evaluate(context(1), empty.build, inputs_of(empty, dtype), types_of(empty, dtype), &none);
        EXPECT_EQ(y.output.shape.numel(), 0);
        for (const std::vector<double>& gradient : y.grads)
          for (const double value : gradient) ASSERT_EQ(value, 0.0);
      } catch (const Error& error) {
        EXPECT_EQ(dtype, DType::f32) << error.what();  // libraries have their limits
      }
    }
  });
}

/// The names in `record("name"` of a source text.
std::set<std::string> recorded_names(const std::string& text) {
  constexpr std::string_view kCall = "record(";
  std::set<std::string> names;
  for (std::size_t at = text.find(kCall); at != std::string::npos; at = text.find(kCall, at)) {
    at = text.find_first_not_of(" \n", at + kCall.size());
    if (at != std::string::npos && text[at] == '"')
      names.insert(text.substr(at + 1, text.find('"', at + 1) - at - 1));
  }
  return names;
}

TEST(OpTable, HasEveryOp) {
  std::set<std::string> rows, recorded;
  for (const OpRow& row : op_table()) rows.insert(row.op);
  for (const auto& entry : std::filesystem::directory_iterator(SGM_SOURCE_DIR "/src/autograd")) {
    if (entry.path().extension() != ".cpp") continue;
    std::ifstream file(entry.path());
    recorded.merge(recorded_names({std::istreambuf_iterator<char>(file), {}}));
  }
  EXPECT_GE(recorded.size(), 12u);
  EXPECT_EQ(rows, recorded);
}

}  // namespace
}  // namespace sgm
