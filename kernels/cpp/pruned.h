// Pruned layers: a mask and the weights that it keeps (bitplan/encodings/pruned.py).
#pragma once

#include <cstddef>
#include <cstdint>

#include "aligned_buffer.h"
#include "artifact.h"

namespace bitplan {

constexpr std::size_t kFloatUnitBytes = 4;       // prunedfloat: the unit of its weights, before the biases
constexpr std::size_t kMostPrunedPerKept = 160;  // so that a small file cannot ask for much memory

// Bytes of the mask of `kept` among n weights: a bitmap, or Elias-Fano code where that is smaller.
std::size_t mask_bytes(std::size_t kept, std::size_t n);

// The n levels of a stream from the kept ones and their mask. Throws FormatError where the mask is none.
void spread_levels(Bytes stored, std::size_t kept, std::size_t n, std::int8_t* levels);

// A packed layer of prunedfloat as one of float32: biases, then the n weights of the stream. Throws FormatError.
AlignedBuffer dense_floats(Bytes packed, std::size_t out, std::size_t kept, std::size_t n);

}  // namespace bitplan
