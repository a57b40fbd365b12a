// How a file holds the structure of its network: bytes, and copies of what came before (kernels/repeats.py).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "artifact.h"

namespace bitplan {

// The `size` bytes whose tokens fill `data`, at most 35 for each of its bytes. Throws FormatError.
std::vector<std::uint8_t> expand_repeats(Bytes data, std::size_t size);

}  // namespace bitplan
