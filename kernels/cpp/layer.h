// A layer's weights as they stay in memory: packed codes, multipliers and biases.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "aligned_buffer.h"
#include "artifact.h"
#include "kept.h"
#include "kernel_table.h"

namespace bitplan {

struct Layer {
  LayerShape shape;
  Codec codec = Codec::float32;
  Kernel kernel = Kernel::floats;
  int unit = 1;  // magnitude of the levels of binary and apb
  // y = multiplier c + bias, per output channel; the zero point's share is folded into `bias`. float32: no multiplier.
  std::vector<float> multiplier, bias;

  // Kernel floats: [group][block][k][16]. Bytes: the stream of codes. Depthwise: [tap][channel] floats or levels.
  AlignedBuffer codes;
  // Apb on bytes, but for depthwise: what of the kept weights stands in the decoded panels, or else is added to the
  // products of the signs.
  KeptLevels kept_levels;
  KeptPanels kept_panels;

  // Kernels bits and lookup, see BitWeights and LookupWeights. Binary and apb have no second plane.
  AlignedBuffer signs, second_signs;
  std::vector<std::int32_t> offset;
  KeptResiduals kept_residuals;  // apb

  std::size_t taps() const { return shape.height * shape.width; }
  std::size_t words() const { return words_of(shape.in / shape.groups); }  // of a tap, in planes
  std::size_t k_steps() const { return (shape.reduction() + kStep - 1) / kStep; }
  std::size_t group_blocks() const { return (shape.group_outputs() + kBlock - 1) / kBlock; }
  std::size_t block_bytes() const {  // of a block as the products read it
    return kBlock * (kernel == Kernel::floats ? 4 * shape.reduction() : kStep * k_steps());
  }
  // A bound on |level|.
  int max_level() const;
  // Whether decoded levels are those of the signs alone.
  bool kept_apart() const { return !kept_panels.start.empty(); }
  // Whether the products read the codes as they are.
  bool ready() const {
    return codec == Codec::float32 ||
           (codec == Codec::int8 && shape.reduction() % kStep == 0 && shape.group_outputs() % kBlock == 0);
  }
  std::size_t resident_bytes() const {
    return codes.bytes() + signs.bytes() + second_signs.bytes() +
           4 * (multiplier.size() + bias.size() + offset.size()) + kept_levels.bytes() + kept_panels.bytes() +
           kept_residuals.bytes();
  }

  // Kernel bytes: writes the levels (kept_apart: the signs) of blocks [first, first + blocks) of a group as
  // [block][k_steps][16][4], zeros where nothing is. The blocks lie within one panel of kMaxBlocks.
  void decode_blocks(const KernelTable& kernels, std::size_t group, std::size_t first, std::size_t blocks,
                     std::int8_t* panel, std::int8_t* buffer) const;
  // Bytes of `buffer` above.
  std::size_t decode_buffer_bytes() const { return kBlock * shape.reduction(); }

  // The panel of kMaxBlocks blocks that block `first` of a group lies in.
  std::size_t panel_of(std::size_t group, std::size_t first) const {
    return group * ((group_blocks() + kMaxBlocks - 1) / kMaxBlocks) + first / kMaxBlocks;
  }

  // From block (of 16, of 32 channels) `first` on.
  BitWeights bit_weights(std::size_t first) const;
  LookupWeights lookup_weights(std::size_t first) const;

 private:
  // Without the kept weights.
  void decode_codes(const KernelTable& kernels, std::size_t group, std::size_t first, std::size_t blocks,
                    std::int8_t* panel, std::int8_t* buffer) const;
};

// Unpacks what the file holds; `range` is that of the layer's input. Throws FormatError.
Layer prepare_layer(const Node& node, const Range& range, const KernelTable& kernels);

}  // namespace bitplan
