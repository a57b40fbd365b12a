// Fills in the epilogue of a tile: rows from `first_row`, output channels from `first_channel`.
#pragma once

#include <optional>

#include "layer.h"
#include "step.h"

namespace bitplan {

inline Epilogue make_epilogue(const Call& call, const Layer& layer, const std::optional<Value>& residual,
                              const Activation& activation, const Value& out, std::size_t first_row,
                              std::size_t first_channel) {
  const std::size_t channels = out.channels(), element = first_row * channels + first_channel;
  Epilogue epilogue;
  if (!layer.multiplier.empty()) epilogue.multiplier = layer.multiplier.data() + first_channel;
  epilogue.bias = layer.bias.data() + first_channel;
  if (residual) {
    epilogue.residual = call.at<std::uint8_t>(*residual) + element * element_bytes(residual->format);
    epilogue.residual_stride = channels;
    epilogue.residual_format = residual->format;
    epilogue.residual_range = residual->range;
  }
  epilogue.activation = activation;
  epilogue.out = call.at<std::uint8_t>(out) + element * element_bytes(out.format);
  epilogue.out_stride = channels;
  epilogue.out_format = out.format;
  epilogue.out_range = out.range;
  return epilogue;
}

}  // namespace bitplan
