// The decoder of xor layers: a shift register that feeds a network of XOR gates (bitplan/encodings/xor_network.py).
#pragma once

#include <cstddef>
#include <cstdint>

#include "artifact.h"

namespace bitplan {

constexpr std::size_t kXorHeaderBytes = 2;  // seed and density, before the code
constexpr std::uint32_t kMaxXorRate = 96;   // in sixteenths of a bit per step of four weights

// Bytes of the code of n > 0 weights.
std::size_t xor_code_bytes(std::size_t n, std::size_t rate);

// Seed, density and code become the two-bit codes of n ternary weights. Throws FormatError.
void decode_xor(Bytes stored, std::size_t n, std::size_t rate, std::uint8_t* resident);

}  // namespace bitplan
