#pragma once
// Binary portable maps: PGM (P5) and PPM (P6).

#include <span>
#include <string>

#include "sgm/data/image.h"

namespace sgm {

/// Decodes a P5 or P6 file of any maximum value up to 65535, rescaled to 255.
Image decode_pnm(std::span<const std::byte> file, const std::string& name);

}  // namespace sgm
