// A layer's weights as they stay in memory: packed codes, multipliers and biases.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "aligned_buffer.h"
#include "artifact.h"
#include "kernel_table.h"

namespace bitplan {

struct Layer {
  LayerShape shape;
  Codec codec = Codec::float32;
  // y = multiplier c + bias, per output channel; the zero point's share is folded into `bias`. float32: no multiplier.
  std::vector<float> multiplier, bias;
  // float32: [group][block][k][16] floats; depthwise: [tap][channel] levels (apb: floats); else the stream of codes.
  AlignedBuffer codes;
  // apb, by output channel: entries kept_start[o] .. kept_start[o + 1); empty for depthwise.
  std::vector<std::uint32_t> kept_start, kept_k;
  std::vector<float> kept_residual;

  std::size_t k_steps() const { return (shape.reduction() + kStep - 1) / kStep; }
  std::size_t group_blocks() const { return (shape.group_outputs() + kBlock - 1) / kBlock; }
  std::size_t block_bytes() const { return k_steps() * kBlock * kStep; }  // of levels
  bool wide() const { return codec == Codec::int8; }
  // Whether the gemm reads the codes as they are.
  bool ready() const {
    return codec == Codec::float32 ||
           (codec == Codec::int8 && shape.reduction() % kStep == 0 && shape.group_outputs() % kBlock == 0);
  }
  std::size_t resident_bytes() const {
    return codes.bytes() +
           4 * (multiplier.size() + bias.size() + kept_start.size() + kept_k.size() + kept_residual.size());
  }

  // Writes the levels of blocks [first, first + blocks) of a group as [block][k_steps][16][4], zeros where nothing is.
  void decode_blocks(const KernelTable& kernels, std::size_t group, std::size_t first, std::size_t blocks,
                     std::int8_t* panel, std::int8_t* buffer) const;
  // Bytes of `buffer` above.
  std::size_t decode_buffer_bytes() const { return kBlock * shape.reduction(); }
};

// Unpacks what the file holds; `range` is that of the layer's input. Throws FormatError.
Layer prepare_layer(const Node& node, const Range& range, const KernelTable& kernels);

}  // namespace bitplan
