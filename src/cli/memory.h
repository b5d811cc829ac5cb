#pragma once
// What training is going to take of memory, told before it starts, and kept below --max-memory.

#include "cli/commands.h"
#include "sgm/train/memory_plan.h"

namespace sgm::cli {

/// The configuration with the settings under which training fits --max-memory. Says on stderr what it takes,
/// and what was changed for it. Throws Error where nothing would do.
Config with_memory_plan(const Config& config, const DeviceOptions& device, const MakeTrainee& make,
                        const BetweenSteps& between = {});

}  // namespace sgm::cli
