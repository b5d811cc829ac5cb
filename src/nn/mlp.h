#pragma once
// A fully connected network for low-dimensional data.

#include <memory>

#include "sgm/nn/module.h"

namespace sgm {

std::unique_ptr<ScoreNetwork> create_mlp(const Config& config, Builder& builder);

}  // namespace sgm
