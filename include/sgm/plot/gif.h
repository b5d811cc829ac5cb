#pragma once
// Animations.

#include <filesystem>
#include <span>

#include "sgm/data/image.h"

namespace sgm {

/// Writes images of one size as an animated GIF, atomically. delay: hundredths of a second a frame; loops: 0
/// repeats for ever. All frames share a palette of 255 colours chosen by median cut; pixels that do not
/// change are not stored again. Throws Error for no images, unequal sizes or sides above 65535.
void write_gif(const std::filesystem::path& path, std::span<const Image> images, int delay = 8,
               int loops = 0);

}  // namespace sgm
