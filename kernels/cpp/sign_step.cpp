#include "sign_step.h"

#include <utility>

namespace bitplan {
namespace {

constexpr std::size_t kFetchRows = 4;  // see split_work

// A run of one and the same code.
AlignedBuffer run_of(int code, std::size_t channels, unsigned planes) {
  const std::size_t words = words_of(channels);
  AlignedBuffer run(4 * planes * words);
  auto* const at = run.as<std::uint32_t>();
  for (std::size_t i = 0; i < planes * words; ++i) {
    const std::size_t left = channels - i % words * 32;
    const std::uint32_t all = left >= 32 ? ~std::uint32_t(0) : (std::uint32_t(1) << left) - 1;
    at[i] = code >> (i / words) & 1 ? all : 0;
  }
  return run;
}

}  // namespace

SignStep::SignStep(Layer layer, const Node& node, const std::vector<Value>& inputs, const Outputs& outputs,
                   const KernelTable& kernels)
    : layer_(std::move(layer)),
      in_(inputs[0]),
      finish_(node, inputs, outputs),
      panels_(layer_.shape),
      indirection_(in_, outputs[0], node.window),
      padding_(run_of(in_.range.padding(), in_.channels(), planes())),
      padding_tables_(lookup() ? table_bytes(layer_.words()) : 0) {
  if (lookup()) kernels.build_tables(padding_.as<std::uint32_t>(), layer_.words(), planes(), padding_tables_.data());
}

SignStep::ThreadScratch SignStep::carve(std::uint8_t* at) const {
  const std::size_t pointers = kMaxRows * layer_.taps();
  Carver carver(at);
  ThreadScratch scratch{};
  scratch.planes = carver.take<const std::uint32_t*>(!lookup() || kept() ? pointers : 0);
  scratch.tables = carver.take<const std::uint8_t*>(lookup() ? pointers : 0);
  scratch.masks = carver.take<std::uint64_t>(kept() ? kept_scratch(layer_.taps() * layer_.words(), planes()) : 0);
  scratch.accumulators = carver.take<std::int32_t>(kMaxRows * kMaxBlocks * kBlock);
  scratch.used = carver.used();
  return scratch;
}

Scratch SignStep::scratch(std::size_t batch) const {
  return {lookup() ? batch * in_.rows() * table_bytes(layer_.words()) + kAlignment : 0, carve(nullptr).used};
}

void SignStep::run(const Call& call) const {
  if (lookup()) build_tables(call);
  const std::size_t rows = call.batch * finish_.outputs[0].rows();
  share_work(call.pool, rows, panels_.units(), kFetchRows, [&](Span part, Span units, std::size_t thread) {
    const ThreadScratch scratch = carve(call.thread_scratch(thread));
    for_each_tile(part, [&](Span tile) { run_tile(call, tile, units, scratch); });
  });
}

// Of all pixels of the input, once for all taps and channels that meet them.
void SignStep::build_tables(const Call& call) const {
  const Span pixels{0, call.batch * in_.rows()};
  const std::size_t run_words = in_.row_bytes() / 4, bytes = table_bytes(layer_.words());
  const std::size_t parts = std::min(call.pool.threads(), pixels.size());
  call.pool.run(parts, [&](std::size_t task, std::size_t) {
    const Span part = pixels.part(task, parts);
    for (std::size_t pixel = part.begin; pixel < part.end; ++pixel)
      call.kernels.build_tables(call.at<std::uint32_t>(in_) + pixel * run_words, layer_.words(), planes(),
                                call.shared + pixel * bytes);
  });
}

void SignStep::run_tile(const Call& call, Span tile, Span units, const ThreadScratch& scratch) const {
  const KernelTable& kernels = call.kernels;
  const std::size_t taps = layer_.taps(), words = layer_.words(), rows = tile.size();
  if (!lookup() || kept())
    indirection_.point(call.at<const std::uint32_t>(in_), in_.row_bytes() / 4, padding_.as<const std::uint32_t>(),
                       tile.begin, rows, scratch.planes);
  if (lookup())
    indirection_.point(static_cast<const std::uint8_t*>(call.shared), table_bytes(layer_.words()),
                       static_cast<const std::uint8_t*>(padding_tables_.data()), tile.begin, rows, scratch.tables);
  if (kept()) kernels.transpose_rows(scratch.planes, taps, words, planes(), rows, scratch.masks);
  panels_.for_each(units, [&](const Panel& panel) {
    constexpr std::size_t kWidth = kMaxBlocks * kBlock;
    if (lookup())
      kernels.conv_lookup(scratch.tables, taps, words, planes(), rows, layer_.lookup_weights(panel.first_block / 2),
                          divide_up(panel.blocks, 2), scratch.accumulators, kWidth);
    else
      kernels.conv_bits(scratch.planes, taps, words, planes(), rows, layer_.bit_weights(panel.first_block),
                        panel.blocks, scratch.accumulators, kWidth);
    if (kept())
      kernels.add_kept(scratch.masks, 32 * taps * words, planes(), rows,
                       layer_.kept_residuals.from(panel.first_channel), layer_.unit, panel.channels,
                       scratch.accumulators, kWidth);
    store_outputs(call, layer_, finish_, {tile.begin, rows, panel.first_channel, panel.channels}, scratch.accumulators,
                  kWidth);
  });
}

}  // namespace bitplan
