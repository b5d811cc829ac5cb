#pragma once
// The RefineNets of noise-conditional score networks: NCSN (2019) and the three sizes of NCSNv2 (2020).

#include <memory>

#include "sgm/nn/module.h"

namespace sgm {

/// Labels are indices of noise scales, 0 for the most noise: training is discrete. NCSN is told the noise
/// scale through its norms; NCSNv2 is not, and its output is divided by sigma.
std::unique_ptr<ScoreNetwork> create_ncsn(const Config& config, Builder& builder);
/// For images below 96 pixels, of 96 to 128, and of up to 256.
std::unique_ptr<ScoreNetwork> create_ncsnv2_64(const Config& config, Builder& builder);
std::unique_ptr<ScoreNetwork> create_ncsnv2_128(const Config& config, Builder& builder);
std::unique_ptr<ScoreNetwork> create_ncsnv2_256(const Config& config, Builder& builder);

}  // namespace sgm
