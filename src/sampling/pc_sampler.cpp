#include "sampling/chain_run.h"
#include "sampling/sampler_parts.h"

namespace sgm {
namespace {

/// Predictor-corrector sampling: at every noise scale the corrector, then the predictor. (Algorithm 1
/// predicts first; the order differs from the reference's at the two ends only.)
class PCSampler final : public Sampler {
 public:
  PCSampler(const SDE& sde, const SamplingConfig& config)
      : sde_(sde),
        grid_(sampling_grid(choose_steps(sde, config), choose_eps(sde, config))),
        predictor_(create_predictor(sde, config, grid_.front().num_scales)),
        corrector_(create_corrector(sde, config, grid_.front().num_scales)),
        denoise_(config.denoise) {}

  SampleResult sample(Context& context, const ScoreFn& score, const SampleRequest& request) const override {
    const Slot slots[] = {{*corrector_, Purpose::corrector}, {*predictor_, Purpose::predictor}};
    return run_chain(slots, grid_, denoise_, context, score, request,
                     start_of(sde_, context, request, noise_of(request)));
  }

 private:
  const SDE& sde_;
  std::vector<TimePoint> grid_;
  std::unique_ptr<Predictor> predictor_;
  std::unique_ptr<Corrector> corrector_;
  bool denoise_;
};

}  // namespace

std::unique_ptr<Sampler> create_pc_sampler(const SDE& sde, const SamplingConfig& config) {
  return std::make_unique<PCSampler>(sde, config);
}

}  // namespace sgm
