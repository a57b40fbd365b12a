// Entropy-coded levels: what bitplan/encodings/level_stream.py writes (FORMAT.md).
#pragma once

#include <cstddef>
#include <cstdint>

#include "artifact.h"

namespace bitplan {

// Fewer bits per weight are in no file, so that a small one cannot ask for much memory: count <= bytes x this.
constexpr std::size_t kMostLevelsPerByte = 160;

// Levels [rows][columns] of -top..top from a stream and the zeros behind it. Throws FormatError where it is none.
void decode_levels(Bytes data, std::size_t rows, std::size_t columns, int top, std::int8_t* levels);

// Levels [out][K], K = (kernel height, kernel width, input channel of the group), in the order of codes.
void rows_to_stream(const LayerShape& shape, const std::int8_t* rows, std::int8_t* stream);

}  // namespace bitplan
