// Configuration text and overrides: what is accepted must survive to_text().

#include "fuzz/fuzz.h"
#include "sgm/core/config.h"

std::vector<std::string> fuzz_seeds() {
  sgm::Config config;
  config.data.path = "../data/a \"b\".zip";
  return {sgm::to_text(config),
          "[sde]\nname = 'vpsde'\nbeta_max = 2e1 # comment\n[model]\nch_mult = [1, 2,\n 2]\ndropout = 0\n",
          "data.path = \"x\"\ntraining = {seed = 0x7f, continuous = true}\noptim.lr = inf\n",
          "optim.lr=1e-3",
          "model.ch_mult=[1, 2]",
          "data.path=a b#c"};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sgm;
  expect_success_or_error(data, size, [](std::span<const std::byte> bytes) {
    const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    const std::string canonical = to_text(parse_config(text, "fuzz"));
    if (to_text(parse_config(canonical, "canonical")) != canonical) std::abort();
  });
  return expect_success_or_error(data, size, [](std::span<const std::byte> bytes) {
    const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    const std::string canonical = to_text(parse_config("", "fuzz", {&text, 1}));
    if (to_text(parse_config(canonical, "canonical")) != canonical) std::abort();
  });
}
