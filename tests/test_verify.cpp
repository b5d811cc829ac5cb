// Checking networks against reference files: what passes, what must not, and what is no reference file.

#include "sgm/train/verify.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "expect_error.h"
#include "sgm/io/safetensors.h"
#include "temp_folder.h"

namespace sgm {
namespace {

constexpr const char* kFiles[] = {"ncsnpp_residual_fir_fourier",
                                  "ncsnpp_output_skip_input_skip_cat",
                                  "ddpmpp_positional_ddpmblock",
                                  "ddpm_vp",
                                  "ncsn",
                                  "ncsnv2"};

std::filesystem::path golden_path(const std::string& name) {
  return std::filesystem::path(SGM_TEST_DATA) / (name + ".safetensors");
}

class Verify : public testing::Test {
 protected:
  VerifyReport verify(const std::filesystem::path& path, const VerifyOptions& options = {}) {
    return verify_reference(path, options, *context_);
  }
  /// A copy of the smallest file with something changed.
  std::filesystem::path changed(const std::function<void(SafeTensors&)>& change) const {
    SafeTensors content = load_safetensors(golden_path("ddpmpp_positional_ddpmblock"));
    change(content);
    std::vector<SafeTensorView> views;
    for (const auto& [name, array] : content.tensors)
      views.push_back({name, array.dtype, array.shape, array.bytes.data()});
    const std::filesystem::path path = folder_.path() / "changed.safetensors";
    save_safetensors(path, views, content.metadata);
    return path;
  }
  void expect_refused(const std::vector<std::string>& parts,
                      const std::function<void(SafeTensors&)>& change) {
    const std::filesystem::path path = changed(change);
    expect_error(parts, [&] { verify(path); });
  }
  static float* floats(SafeTensors& content, const std::string& name) {
    return reinterpret_cast<float*>(content.tensors.at(name).bytes.data());
  }
  static void replace(SafeTensors& content, const std::string& from, const std::string& to) {
    std::string& config = content.metadata.at("config");
    const std::size_t at = config.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    config.replace(at, from.size(), to);
  }
  static const VerifyError& find(const VerifyReport& report, const std::string& name) {
    for (const VerifyError& error : report.errors)
      if (error.name == name) return error;
    throw std::runtime_error("no " + name);
  }

  TempFolder folder_;
  std::unique_ptr<Context> context_ = create_context("cpu", 1);
};

TEST_F(Verify, PassesTheNetworksOfTheOriginal) {
  for (const std::string precision : {"f32", "f64"})
    for (const char* name : kFiles) {
      SCOPED_TRACE(name + (' ' + precision));
      const VerifyReport report = verify(golden_path(name), {precision});
      EXPECT_TRUE(report.passes());
      const double output = precision == "f32" ? 5e-5 : 1e-6, gradient = precision == "f32" ? 1e-3 : 1e-5;
      std::set<std::string> names;
      for (const VerifyError& error : report.errors) {
        EXPECT_TRUE(error.error <= (error.name == "output" ? output : gradient))
            << error.name << ' ' << error.error;
        names.insert(error.name);
      }
      // The output, the gradient in x, and one for every trainable tensor of the file.
      std::size_t trainable = 0;
      for (const auto& [tensor, array] : load_safetensors(golden_path(name)).tensors)
        trainable += tensor.starts_with("grad.");
      EXPECT_EQ(report.errors.size(), trainable + 1);
      EXPECT_TRUE(names.contains("output") && names.contains("grad.x"));
    }
}

TEST_F(Verify, PassesThemInBF16) {
  for (const char* name : kFiles) {
    const VerifyReport report = verify(golden_path(name), {"bf16"});
    // Rounding decides which pixel of a window is the largest, and gradients of poolings jump with it.
    const bool jumps = std::string(name) == "ncsnv2";
    EXPECT_TRUE(jumps || report.passes())
        << name << ": " << report.errors[0].name << ' ' << report.errors[0].error;
    EXPECT_LT(find(report, "output").error, 3e-2) << name;
  }
}

TEST_F(Verify, ReportsNetworkCountAndTheWorstFirst) {
  const VerifyReport report = verify(golden_path("ddpm_vp"));
  EXPECT_EQ(report.network, "ddpm");
  EXPECT_EQ(report.parameters, 685'731);
  for (std::size_t i = 1; i < report.errors.size(); ++i)
    EXPECT_GE(report.errors[i - 1].error / report.errors[i - 1].tolerance,
              report.errors[i].error / report.errors[i].tolerance);
}

TEST_F(Verify, FailsForOneWrongWeight) {
  const VerifyReport report = verify(changed(
      [](SafeTensors& content) { floats(content, "model.all_modules.3.Conv_0.weight")[100] += 0.05f; }));
  EXPECT_FALSE(report.passes());
  EXPECT_FALSE(find(report, "output").passes());
}

TEST_F(Verify, FailsForOneWrongGradient) {
  const VerifyReport report = verify(
      changed([](SafeTensors& content) { floats(content, "grad.all_modules.3.Conv_0.bias")[0] *= 1.5f; }));
  EXPECT_FALSE(report.passes());
  EXPECT_EQ(report.errors[0].name, "grad.all_modules.3.Conv_0.bias");
  EXPECT_TRUE(find(report, "output").passes());
}

TEST_F(Verify, FailsForNan) {
  for (const char* tensor : {"y", "grad.x", "model.all_modules.3.Conv_0.weight"}) {
    const VerifyReport report = verify(changed([tensor](SafeTensors& content) {
      floats(content, tensor)[0] = std::numeric_limits<float>::quiet_NaN();
    }));
    EXPECT_FALSE(report.passes()) << tensor;
    EXPECT_TRUE(std::isnan(report.errors[0].error)) << tensor;
  }
}

TEST_F(Verify, TakesTighterAndLooserTolerances) {
  VerifyOptions tight;
  tight.output_tolerance = 1e-12;
  EXPECT_FALSE(verify(golden_path("ddpm_vp"), tight).passes());
  VerifyOptions loose;
  loose.output_tolerance = loose.gradient_tolerance = 1e6;
  EXPECT_TRUE(verify(changed([](SafeTensors& content) {
                       floats(content, "model.all_modules.3.Conv_0.weight")[100] += 0.05f;
                     }),
                     loose)
                  .passes());
}

TEST_F(Verify, ComparesOutputsAloneWhereTheFileHasNoGradients) {
  const VerifyReport report = verify(changed([](SafeTensors& content) {
    std::erase_if(content.tensors,
                  [](const auto& entry) { return entry.first == "w" || entry.first.starts_with("grad."); });
  }));
  EXPECT_TRUE(report.passes());
  ASSERT_EQ(report.errors.size(), 1u);
  EXPECT_EQ(report.errors[0].name, "output");
}

TEST_F(Verify, IgnoresTheTableOfSigmasThatCheckpointsCarry) {
  EXPECT_TRUE(verify(changed([](SafeTensors& content) {
                content.tensors["model.sigmas"] = make_array<double>({2}, std::vector<double>{50.0, 0.01});
              })).passes());
}

TEST_F(Verify, NamesTensorsThatAreMissingOrDoNotFit) {
  expect_refused({"model.all_modules.3.Conv_0.weight", "missing"},
                 [](SafeTensors& c) { c.tensors.erase("model.all_modules.3.Conv_0.weight"); });
  expect_refused({"grad.all_modules.3.Conv_0.bias", "missing"},
                 [](SafeTensors& c) { c.tensors.erase("grad.all_modules.3.Conv_0.bias"); });
  for (const char* name : {"x", "y", "labels"})
    expect_refused({std::string("'") + name + "'", "missing"},
                   [name](SafeTensors& c) { c.tensors.erase(name); });
  expect_refused({"model.extra", "no place"},
                 [](SafeTensors& c) { c.tensors["model.extra"] = c.tensors.at("y"); });
  expect_refused({"model.all_modules.3.Conv_0.weight", "[16, 16, 9]", "[16, 16, 3, 3]"}, [](SafeTensors& c) {
    c.tensors.at("model.all_modules.3.Conv_0.weight").shape = {16, 16, 9};
  });
  expect_refused({"y", "[2, 3, 256]"}, [](SafeTensors& c) { c.tensors.at("y").shape = {2, 3, 256}; });
  expect_refused({"x must be [N, C, H, W]", "[6, 16, 16]"}, [](SafeTensors& c) {
    c.tensors.at("x").shape = {6, 16, 16};
  });
  expect_refused({"labels", "[1]"}, [](SafeTensors& c) {
    c.tensors.at("labels") = make_array<float>({1}, std::vector<float>{1.0f});
  });
  expect_refused({"y", "u8"}, [](SafeTensors& c) {
    c.tensors.at("y") = make_array<std::uint8_t>({2, 3, 16, 16}, std::vector<std::uint8_t>(1536));
  });
}

TEST_F(Verify, NamesImagesOfAnotherSize) {
  expect_refused({"16, 16, 3", "8, 8, 3"}, [](SafeTensors& c) {
    for (const char* name : {"x", "y", "w", "grad.x"})
      c.tensors.at(name) = make_array<float>({2, 3, 8, 8}, std::vector<float>(384));
  });
}

TEST_F(Verify, NamesOptionsThatItDoesNotKnow) {
  expect_refused({"no 'config'"}, [](SafeTensors& c) { c.metadata.clear(); });
  expect_refused({"config"}, [](SafeTensors& c) { c.metadata["config"] = "{\"model\": 3"; });
  expect_refused({"config"}, [](SafeTensors& c) { c.metadata["config"] = "[1, 2]"; });
  expect_refused({"config", "sde"}, [](SafeTensors& c) { replace(c, "\"sde\"", "\"other\""); });
  expect_refused({"model.name", "'ncsnv3'", "ncsnpp"},
                 [](SafeTensors& c) { replace(c, "\"name\": \"ncsnpp\"", "\"name\": \"ncsnv3\""); });
  expect_refused({"model.nf"}, [](SafeTensors& c) { replace(c, "\"nf\": 16", "\"nf\": -16"); });
  expect_refused({"config"}, [](SafeTensors& c) { replace(c, "\"nf\": 16", "\"nf\": \"many\""); });
  expect_refused({"model.resblock_type"}, [](SafeTensors& c) {
    replace(c, "\"resblock_type\": \"ddpm\"", "\"resblock_type\": \"x\"");
  });
}

TEST_F(Verify, RefusesAConfigThatAsksForMoreThanTheFileHoldsBeforeBuildingIt) {
  expect_refused({"config", "weights"}, [](SafeTensors& c) { replace(c, "\"nf\": 16", "\"nf\": 8192"); });
  expect_refused({"config", "weights"},
                 [](SafeTensors& c) { replace(c, "\"ch_mult\": [1, 2]", "\"ch_mult\": [1, 1024]"); });
  EXPECT_LT(context_->memory().peak, std::size_t{1} << 24);
}

TEST_F(Verify, NamesPrecisionsThatItDoesNotKnow) {
  expect_error({"precision", "'f16'", "bf16"}, [&] { verify(golden_path("ddpm_vp"), {"f16"}); });
}

TEST_F(Verify, NamesFilesThatItCannotRead) {
  expect_error({"nowhere.safetensors"}, [&] { verify(folder_.path() / "nowhere.safetensors"); });
  expect_error({folder_.path().string()}, [&] { verify(folder_.path()); });
  const std::filesystem::path whole = changed([](SafeTensors&) {});
  const auto size = std::filesystem::file_size(whole);
  for (const std::uintmax_t kept :
       {std::uintmax_t{0}, std::uintmax_t{5}, std::uintmax_t{1000}, size / 2, size - 1}) {
    std::filesystem::resize_file(changed([](SafeTensors&) {}), kept);
    expect_error({"changed.safetensors"}, [&] { verify(whole); });
  }
  folder_.write("text.safetensors", "This is no reference file at all, although it is long enough.");
  expect_error({"text.safetensors"}, [&] { verify(folder_.path() / "text.safetensors"); });
}

TEST_F(Verify, LeavesNoMemoryBehind) {
  verify(golden_path("ddpm_vp"));
  EXPECT_EQ(context_->memory().in_use, 0u);
}

}  // namespace
}  // namespace sgm
