// Evenly spaced levels of few bits, decoded at load to bytes (bitplan/encodings/even.py): an encoding that is a set of
// such levels needs no code of its own here.
#pragma once

#include <cstddef>
#include <cstdint>

#include "artifact.h"

namespace bitplan {

constexpr std::size_t kEvenHeaderBytes = 2;  // the lowest level and the step, before the codes
constexpr std::size_t kMostEvenBits = 7;     // with 8, int8 stores the levels themselves

// The n levels of a stream from `stored`: i8 lowest level, u8 step, n codes of `bits` bits (1 to kMostEvenBits). Throws
// FormatError where a code would be a level outside -127 to 127.
void read_even_levels(Bytes stored, std::size_t bits, std::size_t n, std::int8_t* levels);

}  // namespace bitplan
