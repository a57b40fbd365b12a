#include "gemm_step.h"

#include <utility>

#include "epilogue.h"

namespace bitplan {
namespace {

// Decoded levels of a whole layer stay in L2 up to this size; larger layers are decoded panel by panel.
constexpr std::size_t kMaxDecodedBytes = std::size_t(1) << 20;
// Rows that are packed at once when panels are the outer loop.
constexpr std::size_t kMaxPackedBytes = std::size_t(4) << 20;

}  // namespace

GemmStep::GemmStep(Layer layer, const Node& node, const std::vector<Value>& inputs, const Value& out)
    : layer_(std::move(layer)), in_(inputs[0]), out_(out), activation_(node.activation) {
  if (inputs.size() > 1) residual_ = inputs[1];
  const std::size_t outputs = layer_.shape.group_outputs(), blocks = layer_.group_blocks();
  for (std::size_t group = 0; group < layer_.shape.groups; ++group)
    for (std::size_t block = 0; block < blocks; block += kMaxBlocks)
      panels_.push_back({group, block, std::min(kMaxBlocks, blocks - block), group * outputs + block * kBlock,
                         std::min(kMaxBlocks * kBlock, outputs - block * kBlock)});
}

std::size_t GemmStep::row_elements() const {
  return in_.format == Format::u8 ? layer_.k_steps() * kStep : layer_.shape.reduction();
}

std::size_t GemmStep::decoded_bytes() const {
  return layer_.shape.groups * layer_.group_blocks() * layer_.block_bytes();
}

// Codes that few rows use, or that would not stay in cache, are decoded next to their use.
bool GemmStep::by_panel(std::size_t batch) const {
  return !layer_.ready() && (total_rows(batch) <= kMaxRows || decoded_bytes() > kMaxDecodedBytes);
}

std::size_t GemmStep::packed_rows(std::size_t batch) const {
  const std::size_t fit = kMaxPackedBytes / (layer_.shape.groups * row_bytes()) / kMaxRows * kMaxRows;
  return std::min(std::max(fit, kMaxRows), total_rows(batch));
}

GemmStep::ThreadScratch GemmStep::carve(std::uint8_t* at) const {
  Carver carver(at);
  ThreadScratch scratch{};
  scratch.rows = carver.take<std::uint8_t>(direct() ? 0 : kMaxRows * row_bytes());
  scratch.panel = carver.take<std::int8_t>(layer_.ready() ? 0 : kMaxBlocks * layer_.block_bytes());
  scratch.decode_buffer = carver.take<std::int8_t>(layer_.ready() ? 0 : layer_.decode_buffer_bytes());
  scratch.accumulators = carver.take<float>(kMaxRows * kMaxBlocks * kBlock);
  scratch.float_accumulators = carver.take<float>(layer_.codec == Codec::apb ? kMaxRows * kMaxBlocks * kBlock : 0);
  scratch.used = carver.used();
  return scratch;
}

Scratch GemmStep::scratch(std::size_t batch) const {
  // Any batch up to the planned one may run, hence both orders of loops.
  std::size_t shared = 0;
  if (!layer_.ready()) {
    if (!direct()) shared = packed_rows(batch) * layer_.shape.groups * row_bytes();
    if (decoded_bytes() <= kMaxDecodedBytes) shared = std::max(shared, decoded_bytes());
  }
  return {shared + kAlignment, carve(nullptr).used};
}

void GemmStep::run(const Call& call) const { by_panel(call.batch) ? run_by_panel(call) : run_by_tile(call); }

GemmStep::Rows GemmStep::direct_rows(const Call& call, std::size_t group, std::size_t first) const {
  const std::size_t stride = in_.channels();
  const std::size_t element = first * stride + group * layer_.shape.reduction();
  return {call.at<std::uint8_t>(in_) + element * element_bytes(in_.format), stride};
}

const std::uint8_t* GemmStep::resident_panel(const Panel& panel) const {
  const std::size_t block =
      layer_.codec == Codec::float32 ? 4 * kBlock * layer_.shape.reduction() : layer_.block_bytes();
  return layer_.codes.data() + (panel.group * layer_.group_blocks() + panel.first_block) * block;
}

void GemmStep::run_by_tile(const Call& call) const {
  const bool ready = layer_.ready();
  const auto decoded = [&](const Panel& panel) {
    return call.shared + (panel.group * layer_.group_blocks() + panel.first_block) * layer_.block_bytes();
  };
  if (!ready)
    call.pool.run(panels_.size(), [&](std::size_t task, std::size_t thread) {
      const Panel& panel = panels_[task];
      layer_.decode_blocks(call.kernels, panel.group, panel.first_block, panel.blocks,
                           reinterpret_cast<std::int8_t*>(decoded(panel)),
                           carve(call.thread_scratch(thread)).decode_buffer);
    });
  const std::size_t rows = total_rows(call.batch), tiles = divide_up(rows, kMaxRows);
  // Where tiles are fewer than threads, the panels of a tile are shared out too.
  const std::size_t parts = std::min(panels_.size(), divide_up(call.pool.threads(), tiles));
  call.pool.run(tiles * parts, [&](std::size_t task, std::size_t thread) {
    const ThreadScratch scratch = carve(call.thread_scratch(thread));
    const std::size_t first = task / parts * kMaxRows, count = std::min(kMaxRows, rows - first), part = task % parts;
    Rows tile{nullptr, 0};
    std::size_t group = layer_.shape.groups;
    for (std::size_t i = part * panels_.size() / parts; i < (part + 1) * panels_.size() / parts; ++i) {
      const Panel& panel = panels_[i];
      if (panel.group != group) {
        group = panel.group;
        tile = direct() ? direct_rows(call, group, first) : Rows{scratch.rows, row_elements()};
        if (!direct()) pack(call, group, first, count, scratch.rows);
      }
      multiply(call, panel, ready ? resident_panel(panel) : decoded(panel), tile, first, count, scratch);
    }
  });
}

void GemmStep::run_by_panel(const Call& call) const {
  const std::size_t rows = total_rows(call.batch), groups = layer_.shape.groups;
  const std::size_t at_once = direct() ? rows : packed_rows(call.batch);
  for (std::size_t start = 0; start < rows; start += at_once) {
    const std::size_t end = std::min(start + at_once, rows), tiles = divide_up(end - start, kMaxRows);
    const auto packed = [&](std::size_t group, std::size_t row) {
      return call.shared + (group * at_once + row - start) * row_bytes();
    };
    if (!direct())
      call.pool.run(groups * tiles, [&](std::size_t task, std::size_t) {
        const std::size_t first = start + task % tiles * kMaxRows, group = task / tiles;
        pack(call, group, first, std::min(kMaxRows, end - first), packed(group, first));
      });
    call.pool.run(panels_.size(), [&](std::size_t task, std::size_t thread) {
      const Panel& panel = panels_[task];
      const ThreadScratch scratch = carve(call.thread_scratch(thread));
      layer_.decode_blocks(call.kernels, panel.group, panel.first_block, panel.blocks, scratch.panel,
                           scratch.decode_buffer);
      for (std::size_t first = start; first < end; first += kMaxRows) {
        const Rows tile =
            direct() ? direct_rows(call, panel.group, first) : Rows{packed(panel.group, first), row_elements()};
        multiply(call, panel, reinterpret_cast<const std::uint8_t*>(scratch.panel), tile, first,
                 std::min(kMaxRows, end - first), scratch);
      }
    });
  }
}

void GemmStep::multiply(const Call& call, const Panel& panel, const std::uint8_t* weights, const Rows& rows,
                        std::size_t first, std::size_t count, const ThreadScratch& scratch) const {
  const KernelTable& kernels = call.kernels;
  const std::size_t width = panel.blocks * kBlock;
  const Epilogue epilogue = make_epilogue(call, layer_, residual_, activation_, out_, first, panel.first_channel);
  if (in_.format == Format::f32) {
    auto* const sums = static_cast<float*>(scratch.accumulators);
    kernels.gemm_f32(reinterpret_cast<const float*>(rows.data), rows.stride, count,
                     reinterpret_cast<const float*>(weights), layer_.shape.reduction(), panel.blocks, sums, width);
    kernels.store_f32(sums, width, count, panel.channels, epilogue);
    return;
  }
  auto* const sums = static_cast<std::int32_t*>(scratch.accumulators);
  kernels.gemm_u8s8(rows.data, rows.stride, count, reinterpret_cast<const std::int8_t*>(weights), layer_.k_steps(),
                    panel.blocks, layer_.wide(), sums, width);
  if (layer_.codec != Codec::apb) {
    kernels.store_i32(sums, width, count, panel.channels, epilogue);
    return;
  }
  kernels.i32_to_f32(sums, count * width, scratch.float_accumulators);
  const Kept kept{layer_.kept_start.data() + panel.first_channel, layer_.kept_k.data(), layer_.kept_residual.data()};
  kernels.add_kept(rows.data, rows.stride, count, kept, panel.channels, in_.range.zero_point,
                   scratch.float_accumulators, width);
  kernels.store_f32(scratch.float_accumulators, width, count, panel.channels, epilogue);
}

}  // namespace bitplan
