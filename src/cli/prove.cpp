// sgm prove: measures all that has a closed form, and says whether it agrees.

#include <iomanip>
#include <iostream>
#include <sstream>

#include "cli/commands.h"
#include "cli/output.h"
#include "sgm/io/atomic_file.h"
#include "sgm/lab/proof.h"

namespace sgm::cli {
namespace {

struct ProveOptions {
  bool full = false;
  std::vector<std::string> only;
  std::string out, plot;
  DeviceOptions device{.device = "cpu"};  // the scores in closed form are the host's
};

std::string number(double value) {
  std::ostringstream text;
  text << std::setprecision(4) << value;
  return text.str();
}

/// A row of a Markdown table.
void print(const Check& check) {
  std::cout << "| " << std::left << std::setw(56) << check.name << " | " << std::setw(54) << check.what
            << " | " << std::right << std::setw(10) << number(check.value) << " | " << std::left
            << std::setw(16) << check.requirement() << " | " << (check.passes() ? "yes " : "NO  ") << " |"
            << std::endl;
}

int prove_command(const ProveOptions& o) {
  check_output_file("--out", o.out, ".json");
  check_output_file("--plot", o.plot, ".png");
  const auto context = o.device.open();
  ProofOptions options{.full = o.full, .only = o.only, .needs_curves = !o.plot.empty()};
  options.made = [printed = false](const Check& check) mutable {
    if (!printed) std::cout << "| check | measured | value | required | holds |\n|---|---|---|---|---|\n";
    printed = true;
    print(check);
    return !stop_requested();
  };
  watch_signals();
  const Proof proof = prove(*context, options);
  if (stop_requested()) {
    std::cerr << "interrupted; nothing was written\n";
    return kInterrupted;
  }
  if (!o.out.empty()) {
    AtomicFile file(o.out);
    file.write(to_json(proof));
    file.commit();
  }
  if (!o.plot.empty()) write_png(o.plot, plot_orders(proof));
  std::int64_t failed = 0;
  for (const Check& check : proof.checks) failed += !check.passes();
  std::cerr << proof.checks.size() << " checks, " << failed << " failed\n";
  return failed == 0 ? kDone : kCheckFailed;
}

}  // namespace

void add_prove(CLI::App& app, Command& chosen) {
  auto o = std::make_shared<ProveOptions>();
  CLI::App* command =
      app.add_subcommand("prove", "Measure orders, biases, likelihoods and samplers against closed forms");
  command->add_flag("--full", o->full, "All samplers, at 50,000 points: minutes instead of seconds");
  command->add_option("--only", o->only, "Groups to run: " + CLI::detail::join(proof_names(), ", "));
  command->add_option("--out", o->out, "Write checks and error curves to this JSON file");
  command->add_option("--plot", o->plot, "Draw errors against steps into this PNG file");
  o->device.add_to(*command);
  command->callback([o, &chosen] { chosen = [o] { return prove_command(*o); }; });
}

}  // namespace sgm::cli
