// What convolution and linear layers share: rows of activations times panels of up to 64 output channels.
#pragma once

#include <optional>
#include <vector>

#include "layer.h"
#include "step.h"

namespace bitplan {

class GemmStep : public Step {
 public:
  GemmStep(Layer layer, const Node& node, const std::vector<Value>& inputs, const Value& out);

  Scratch scratch(std::size_t batch) const override;
  void run(const Call& call) const override;

 protected:
  // Whether the rows lie in the arena as they are; else `pack` makes them.
  virtual bool direct() const = 0;
  // Writes rows [first, first + count) of a group, `row_bytes()` apart.
  virtual void pack(const Call& call, std::size_t group, std::size_t first, std::size_t count,
                    std::uint8_t* target) const = 0;

  std::size_t row_elements() const;  // K, in u8 filled up to a multiple of 4
  std::size_t row_bytes() const { return row_elements() * element_bytes(in_.format); }

  Layer layer_;
  Value in_, out_;

 private:
  // Up to kMaxBlocks blocks of one group's output channels.
  struct Panel {
    std::size_t group, first_block, blocks, first_channel, channels;
  };
  struct Rows {
    const std::uint8_t* data;
    std::size_t stride;  // elements
  };
  struct ThreadScratch {
    std::uint8_t* rows;
    std::int8_t *panel, *decode_buffer;
    void* accumulators;
    float* float_accumulators;
    std::size_t used;
  };

  ThreadScratch carve(std::uint8_t* at) const;
  std::size_t total_rows(std::size_t batch) const { return batch * out_.rows(); }
  std::size_t packed_rows(std::size_t batch) const;
  std::size_t decoded_bytes() const;
  bool by_panel(std::size_t batch) const;
  Rows direct_rows(const Call& call, std::size_t group, std::size_t first) const;
  const std::uint8_t* resident_panel(const Panel& panel) const;
  void run_by_tile(const Call& call) const;
  void run_by_panel(const Call& call) const;
  void multiply(const Call& call, const Panel& panel, const std::uint8_t* weights, const Rows& rows, std::size_t first,
                std::size_t count, const ThreadScratch& scratch) const;

  std::optional<Value> residual_;
  Activation activation_;
  std::vector<Panel> panels_;
};

}  // namespace bitplan
