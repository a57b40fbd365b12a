// Convolution and linear layers on the kernels bits and lookup: activations stay in planes of bits.
#pragma once

#include "epilogue.h"
#include "indirection.h"
#include "layer.h"
#include "step.h"
#include "work_split.h"

namespace bitplan {

class SignStep : public Step {
 public:
  SignStep(Layer layer, const Node& node, const std::vector<Value>& inputs, const Outputs& outputs,
           const KernelTable& kernels);

  Scratch scratch(std::size_t batch) const override;
  void run(const Call& call) const override;

 private:
  struct ThreadScratch {
    const std::uint32_t** planes;
    const std::uint8_t** tables;
    std::uint64_t* masks;
    std::int32_t* accumulators;
    std::size_t used;
  };

  bool lookup() const { return layer_.kernel == Kernel::lookup; }
  bool kept() const { return layer_.codec == Codec::apb; }
  unsigned planes() const { return bits_of(in_.format); }
  ThreadScratch carve(std::uint8_t* at) const;
  void build_tables(const Call& call) const;
  void run_tile(const Call& call, Span tile, Span units, const ThreadScratch& scratch) const;

  Layer layer_;
  Value in_;
  Finish finish_;
  Panels panels_;
  Indirection indirection_;
  AlignedBuffer padding_, padding_tables_;  // a pixel outside of the image
};

}  // namespace bitplan
