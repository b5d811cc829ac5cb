#pragma once
// The U-Net family: NCSN++ with every option of the original, hence DDPM++, and the original DDPM.

#include <memory>

#include "sgm/nn/module.h"

namespace sgm {

std::unique_ptr<ScoreNetwork> create_ncsnpp(const Config& config, Builder& builder);
/// DDPM is the same graph with plain blocks: no FIR, no rescaling, 32 groups, positional embedding.
std::unique_ptr<ScoreNetwork> create_ddpm(const Config& config, Builder& builder);

}  // namespace sgm
