// Sample paths of the forward SDE against the marginals in closed form.

#include "lab/figures/parts.h"
#include "lab/proof/parts.h"
#include "lab/two_sample.h"

namespace sgm::lab {

void prove_forward_paths(ProofRun& run) {
  const auto density = line_mixture();
  for (const std::string& name : sde_names()) {
    const auto sde = proof_sde(name);
    const Laboratory lab{.context = run.context(),
                         .density = *density,
                         .sde = *sde,
                         .score = exact_score(*density, *sde),
                         .score_product = exact_score_product(*density, *sde)};
    for (const bool exact : {true, false}) {
      const int steps = exact ? 20 : 1000;
      const std::int64_t n = run.is_full() ? 50'000 : 5000;
      const Film film =
          forward_film(lab, n, steps, exact, [=](int m) { return m % (steps / 2) == 0 ? n : 0; });
      for (const std::size_t frame : {std::size_t{1}, std::size_t{2}}) {
        const Marginal at = marginal_at(*sde, film.times.at(frame));
        const TestResult result = ks_test(film.frames[frame], [&](double x) { return line_cdf(x, at); });
        run.at_least(
            "forward paths: " + short_name(name) + (exact ? ", transition kernels" : ", Euler-Maruyama"),
            "p of Kolmogorov-Smirnov at t = " + std::string(frame == 1 ? "0.5" : "1"), result.p, 1e-3);
      }
    }
  }
}

}  // namespace sgm::lab
