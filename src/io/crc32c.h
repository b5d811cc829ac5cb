#pragma once
// CRC-32C (Castagnoli), the checksum of TFRecord files.

#include <cstdint>
#include <string_view>

namespace sgm {

/// Reflected polynomial 0x82F63B78, initial value and final xor all ones: crc32c("123456789") == 0xE3069283.
std::uint32_t crc32c(std::string_view bytes);

/// The masked form that TFRecord stores: rotated right by 15 bits plus a constant, so that a checksum of data
/// which hold checksums stays useful.
std::uint32_t masked_crc32c(std::string_view bytes);

}  // namespace sgm
