// The scale and the bias of each output channel, as a layer's bytes begin with them.
#pragma once

#include <cstddef>
#include <vector>

#include "artifact.h"
#include "codec.h"

namespace bitplan {

struct ChannelNumbers {
  std::vector<float> scale, bias;
};

// Their bytes; not of a layer of floats.
std::size_t channel_number_bytes(const CodecInfo& info, std::size_t out);

// Throws FormatError where a number is not finite, or a mantissa none of the format.
ChannelNumbers read_channel_numbers(const CodecInfo& info, Bytes data, std::size_t out);

}  // namespace bitplan
