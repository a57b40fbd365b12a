// Convolution and linear layers on the kernels floats and bytes: rows of activations times panels of up to 64 output
// channels. Rows lie in the arena as they are (1 x 1), are addressed tap by tap, or are packed. Where the level can
// store products at once (KernelTable::conv_u8s8_store), rows of small images are addressed once for all taps instead.
#pragma once

#include <memory>

#include "epilogue.h"
#include "indirection.h"
#include "layer.h"
#include "pack_rows.h"
#include "shifted_rows.h"
#include "step.h"
#include "work_split.h"

namespace bitplan {

class GemmStep : public Step {
 public:
  // Inputs in planes of bits are unpacked to bytes first.
  GemmStep(Layer layer, const Node& node, const std::vector<Value>& inputs, const Outputs& outputs);

  Scratch scratch(std::size_t batch) const override;
  void run(const Call& call) const override;

 private:
  enum class Rows { direct, indirect, packed };
  struct ThreadScratch {
    std::uint8_t* rows;             // packed
    const std::uint8_t** pointers;  // indirect: by row and tap; stored at once: by row
    std::int8_t *levels, *decode_buffer;
    std::uint8_t* columns;      // of a tile's rows, kept weights apart
    std::uint32_t* run_starts;  // [panels][KeptPanels::kRuns + 1]
    void* accumulators;
    std::size_t used;
  };
  class Part;

  static constexpr std::size_t kAccumulators = kMaxRows * kMaxBlocks * kBlock;

  bool floats() const { return layer_.kernel == Kernel::floats; }
  std::size_t element() const { return floats() ? 4 : 1; }
  std::size_t row_elements() const { return floats() ? layer_.shape.reduction() : kStep * layer_.k_steps(); }
  std::size_t total_rows(std::size_t batch) const { return batch * finish_.outputs[0].rows(); }
  std::size_t decoded_bytes(Span units) const;
  std::size_t units_at_once() const;
  ThreadScratch carve(std::uint8_t* at) const;
  const std::uint8_t* unpack(const Call& call) const;
  void run_tiles(Part& part, Span rows, Span units, const ThreadScratch& scratch) const;
  bool stores_at_once(const Call& call) const { return at_once_ && call.kernels.conv_u8s8_store; }
  std::size_t one_row_blocks(std::size_t batch) const;
  void run_part(const Call& call, const std::uint8_t* input, Span rows, Span units, std::size_t thread) const;
  void run_one_row(const Call& call, const std::uint8_t* input, std::size_t blocks) const;

  Layer layer_;
  Value in_;
  Finish finish_;
  Panels panels_;
  Indirection indirection_;
  Rows rows_;
  ShiftedRows shifted_;
  bool at_once_;  // unless the level cannot
  RowPacker packer_;
  AlignedBuffer padding_;  // the channels of a pixel outside of the image
  int padding_byte_;
};

}  // namespace bitplan
