#include "gemm_step.h"

#include <utility>

namespace bitplan {
namespace {

// Decoded levels of a part stay in L2 up to this size; more are decoded panel by panel, each for all rows of the part.
constexpr std::size_t kMaxDecodedBytes = std::size_t(512) << 10;
// The same where rows are transposed, which costs as much as their products with a few channels.
constexpr std::size_t kMaxDecodedSigns = std::size_t(768) << 10;
// What fetching a part's weights costs, and decoding them too (see split_work).
constexpr std::size_t kFetchRows = 2, kDecodeRows = 6;
// Bytes of a run: shorter ones are packed.
constexpr std::size_t kLeastRun = 16;
// Bytes of an image that is copied to have its padding around it; of larger ones, every tap is addressed.
constexpr std::size_t kMostPadded = std::size_t(64) << 10;

}  // namespace

GemmStep::GemmStep(Layer layer, const Node& node, const std::vector<Value>& inputs, const Outputs& outputs)
    : layer_(std::move(layer)),
      in_(inputs[0]),
      finish_(node, inputs, outputs),
      panels_(layer_.shape),
      indirection_(in_, outputs[0], node.window),
      shifted_(in_, outputs[0], node.window),
      packer_(in_, outputs[0], node.window, layer_.shape.groups, element(), row_elements() * element()),
      padding_(in_.channels() * element()),
      padding_byte_(floats() ? 0 : in_.range.padding()) {
  const std::size_t run = in_.channels() / layer_.shape.groups;
  const bool addressed = run * element() >= kLeastRun && (floats() || run % kStep == 0);
  rows_ = indirection_.identity() ? Rows::direct : addressed ? Rows::indirect : Rows::packed;
  // 1 x 1 layers and blocks that are not full do not gain by it.
  at_once_ = finish_.at_once() && !layer_.kept_apart() && in_.format == Format::u8 && rows_ == Rows::indirect &&
             shifted_.padded() && shifted_.padded_bytes() <= kMostPadded && layer_.shape.group_outputs() % kBlock == 0;
  std::fill_n(padding_.data(), padding_.bytes(), std::uint8_t(padding_byte_));
}

std::size_t GemmStep::decoded_bytes(Span units) const {
  constexpr std::size_t kUnitBlocks = Panels::kUnitChannels / kBlock;
  return std::min(units.size() * kUnitBlocks, layer_.shape.groups * layer_.group_blocks()) * layer_.block_bytes();
}

GemmStep::ThreadScratch GemmStep::carve(std::uint8_t* at) const {
  const std::size_t all = decoded_bytes({0, panels_.units()}), panel = kMaxBlocks * layer_.block_bytes();
  const std::size_t most = layer_.kept_apart() ? kMaxDecodedSigns : kMaxDecodedBytes;
  const std::size_t kept = rows_ == Rows::packed ? all : std::min(all, most);
  const std::size_t panels = layer_.kept_apart() ? layer_.kept_panels.start.size() - 1 : 0;
  Carver carver(at);
  ThreadScratch scratch{};
  scratch.rows = carver.take<std::uint8_t>(rows_ == Rows::packed ? kMaxRows * row_elements() * element() : 0);
  scratch.pointers = carver.take<const std::uint8_t*>(rows_ == Rows::indirect ? kMaxRows * indirection_.taps() : 0);
  scratch.levels = carver.take<std::int8_t>(layer_.ready() ? 0 : std::max(kept, panel));
  scratch.decode_buffer = carver.take<std::int8_t>(layer_.ready() ? 0 : layer_.decode_buffer_bytes());
  scratch.columns = carver.take<std::uint8_t>(panels > 0 ? kMaxRows * layer_.shape.reduction() : 0);
  scratch.run_starts = carver.take<std::uint32_t>(panels * (KeptPanels::kRuns + 1));
  scratch.accumulators = carver.take<float>(kAccumulators);
  scratch.used = carver.used();
  return scratch;
}

Scratch GemmStep::scratch(std::size_t batch) const {
  std::size_t shared = 0;
  if (has_planes(in_.format)) shared = batch * in_.elements() + kAlignment;
  if (at_once_) shared = batch * shifted_.padded_bytes() + kAlignment;
  return {shared, carve(nullptr).used};
}

void GemmStep::run(const Call& call) const {
  const std::uint8_t* input = has_planes(in_.format) ? unpack(call) : call.at<std::uint8_t>(in_);
  if (stores_at_once(call)) {
    shifted_.surround(call, input, padding_byte_, call.shared);
    input = call.shared;
  }
  if (const std::size_t blocks = one_row_blocks(call.batch)) return run_one_row(call, input, blocks);
  share_work(call.pool, total_rows(call.batch), panels_.units(), layer_.ready() ? kFetchRows : kDecodeRows,
             [&](Span rows, Span units, std::size_t thread) { run_part(call, input, rows, units, thread); });
}

const std::uint8_t* GemmStep::unpack(const Call& call) const {
  const std::size_t channels = in_.channels(), bytes = in_.row_bytes();
  const Span pixels{0, call.batch * in_.rows()};
  const std::size_t parts = std::min(call.pool.threads(), pixels.size());
  call.pool.run(parts, [&](std::size_t task, std::size_t) {
    const Span part = pixels.part(task, parts);
    for (std::size_t pixel = part.begin; pixel < part.end; ++pixel)
      call.kernels.unpack_codes(reinterpret_cast<const std::uint32_t*>(call.at<std::uint8_t>(in_) + pixel * bytes),
                                bits_of(in_.format), channels, call.shared + pixel * channels);
  });
  return call.shared;
}

// A part of the work: some rows times some channels.
class GemmStep::Part {
 public:
  Part(const GemmStep& step, const Call& call, const std::uint8_t* input, const ThreadScratch& scratch)
      : step_(step), call_(call), input_(input), scratch_(scratch) {}

  // The panel's weights as the products read them, decoded where necessary.
  const std::uint8_t* fetch(const Panel& panel, std::int8_t* levels) const {
    const Layer& layer = step_.layer_;
    if (layer.ready())
      return layer.codes.data() + (panel.group * layer.group_blocks() + panel.first_block) * layer.block_bytes();
    layer.decode_blocks(call_.kernels, panel.group, panel.first_block, panel.blocks, levels, scratch_.decode_buffer);
    if (layer.kept_apart()) {
      const std::size_t number = layer.panel_of(panel.group, panel.first_block);
      layer.kept_panels.find_runs(number, run_starts(number));
    }
    return reinterpret_cast<const std::uint8_t*>(levels);
  }

  void multiply(Span tile, const Panel& panel, const std::uint8_t* weights) {
    set_rows(tile, panel.group);
    const std::size_t width = panel.blocks * kBlock;
    const Tile place{tile.begin, tile.size(), panel.first_channel, panel.channels};
    if (step_.floats()) {
      auto* const sums = static_cast<float*>(scratch_.accumulators);
      form_sums(panel, reinterpret_cast<const float*>(weights), sums, width);
      store_outputs(call_, step_.layer_, step_.finish_, place, sums, width);
    } else if (step_.stores_at_once(call_)) {
      Epilogue epilogue = make_epilogue(call_, step_.layer_, step_.finish_, place);
      store_elements(call_, step_.finish_.outputs[0], place, epilogue);
      const std::size_t taps = step_.layer_.taps();
      call_.kernels.conv_u8s8_store(scratch_.pointers, step_.shifted_.offsets(), taps, step_.layer_.k_steps() / taps,
                                    count_, reinterpret_cast<const std::int8_t*>(weights), panel.blocks, panel.channels,
                                    epilogue);
    } else {
      auto* const sums = static_cast<std::int32_t*>(scratch_.accumulators);
      form_sums(panel, reinterpret_cast<const std::int8_t*>(weights), sums, width);
      if (step_.layer_.kept_apart()) add_kept(panel, sums, width);
      store_outputs(call_, step_.layer_, step_.finish_, place, sums, width);
    }
  }

 private:
  // Addresses or packs the tile's rows, unless the last call did.
  void set_rows(Span tile, std::size_t group) {
    if (tile.begin == first_ && group == group_) return;
    first_ = tile.begin;
    count_ = tile.size();
    group_ = group;
    const std::size_t pixel = step_.in_.channels() * step_.element();
    const std::uint8_t* const base = input_ + group * (pixel / step_.layer_.shape.groups);
    if (step_.stores_at_once(call_)) return step_.shifted_.point(base, first_, count_, scratch_.pointers);
    switch (step_.rows_) {
      case Rows::direct:
        data_ = base + first_ * pixel;
        stride_ = step_.in_.channels();
        break;
      case Rows::indirect:
        step_.indirection_.point<std::uint8_t>(base, pixel, step_.padding_.data(), first_, count_, scratch_.pointers);
        break;
      case Rows::packed:
        step_.packer_.pack(input_, step_.padding_byte_, group, first_, count_, scratch_.rows);
        data_ = scratch_.rows;
        stride_ = step_.row_elements();
    }
    if (step_.layer_.kept_apart()) transpose_rows();
  }

  void transpose_rows() const {
    const std::size_t taps = step_.layer_.taps(), k = step_.layer_.shape.reduction();
    if (step_.rows_ == Rows::indirect)
      return call_.kernels.write_columns(scratch_.pointers, taps, k / taps, count_, scratch_.columns);
    const std::uint8_t* pointers[kMaxRows];
    for (std::size_t row = 0; row < count_; ++row) pointers[row] = data_ + row * stride_;
    call_.kernels.write_columns(pointers, 1, k, count_, scratch_.columns);
  }

  std::uint32_t* run_starts(std::size_t panel) const { return scratch_.run_starts + panel * (KeptPanels::kRuns + 1); }

  void add_kept(const Panel& panel, std::int32_t* sums, std::size_t width) const {
    const Layer& layer = step_.layer_;
    const std::uint32_t* const starts = run_starts(layer.panel_of(panel.group, panel.first_block));
    const KeptBytes kept{starts + panel.first_block % kMaxBlocks * 2 * kBlock, layer.kept_panels.place.data(),
                         layer.kept_panels.magnitude.data()};
    call_.kernels.add_kept_bytes(scratch_.columns, count_, kept, layer.unit, panel.channels, sums, width);
  }

  void form_sums(const Panel& panel, const std::int8_t* weights, std::int32_t* sums, std::size_t width) const {
    const Layer& layer = step_.layer_;
    if (step_.rows_ == Rows::indirect)
      call_.kernels.conv_u8s8(scratch_.pointers, layer.taps(), layer.k_steps() / layer.taps(), count_, weights,
                              panel.blocks, layer.max_level(), sums, width);
    else
      call_.kernels.gemm_u8s8(data_, stride_, count_, weights, layer.k_steps(), panel.blocks, layer.max_level(), sums,
                              width);
  }
  void form_sums(const Panel& panel, const float* weights, float* sums, std::size_t width) const {
    const std::size_t k = step_.layer_.shape.reduction(), taps = step_.layer_.taps();
    if (step_.rows_ == Rows::indirect)
      call_.kernels.conv_f32(reinterpret_cast<const float* const*>(scratch_.pointers), taps, k / taps, count_, weights,
                             panel.blocks, sums, width);
    else
      call_.kernels.gemm_f32(reinterpret_cast<const float*>(data_), stride_, count_, weights, k, panel.blocks, sums,
                             width);
  }

  const GemmStep& step_;
  const Call& call_;
  const std::uint8_t* input_;
  const ThreadScratch& scratch_;
  std::size_t first_ = SIZE_MAX, count_ = 0, group_ = 0;
  const std::uint8_t* data_ = nullptr;
  std::size_t stride_ = 0;  // elements
};

// Units whose decoded levels stay in cache together, whole panels.
std::size_t GemmStep::units_at_once() const {
  constexpr std::size_t kUnitsOfPanel = kMaxBlocks * kBlock / Panels::kUnitChannels;
  const std::size_t panels = kMaxDecodedSigns / (kMaxBlocks * layer_.block_bytes());
  return kUnitsOfPanel * std::max<std::size_t>(panels, 1);
}

void GemmStep::run_part(const Call& call, const std::uint8_t* input, Span rows, Span units, std::size_t thread) const {
  const ThreadScratch scratch = carve(call.thread_scratch(thread));
  Part part(*this, call, input, scratch);
  // Weights that leave the cache are read once, for all rows; else rows are addressed or packed once, for all channels.
  if (tile_count(rows) == 1 ||
      (rows_ != Rows::packed && !layer_.kept_apart() && decoded_bytes(units) > kMaxDecodedBytes)) {
    panels_.for_each(units, [&](const Panel& panel) {
      const std::uint8_t* const weights = part.fetch(panel, scratch.levels);
      for_each_tile(rows, [&](Span tile) { part.multiply(tile, panel, weights); });
    });
    return;
  }
  if (rows_ == Rows::packed || !layer_.kept_apart()) return run_tiles(part, rows, units, scratch);
  for (Span some = units; some.begin < units.end; some.begin = some.end) {
    some.end = std::min(units.end, some.begin + units_at_once());
    run_tiles(part, rows, some, scratch);
  }
}

void GemmStep::run_tiles(Part& part, Span rows, Span units, const ThreadScratch& scratch) const {
  if (!layer_.ready()) {
    std::int8_t* levels = scratch.levels;
    panels_.for_each(units, [&](const Panel& panel) {
      part.fetch(panel, levels);
      levels += panel.blocks * layer_.block_bytes();
    });
  }
  const auto multiply = [&](Span tile) {
    std::int8_t* levels = scratch.levels;
    panels_.for_each(units, [&](const Panel& panel) {
      part.multiply(tile, panel,
                    layer_.ready() ? part.fetch(panel, nullptr) : reinterpret_cast<const std::uint8_t*>(levels));
      levels += panel.blocks * layer_.block_bytes();
    });
  };
  if (!layer_.kept_apart()) return for_each_tile(rows, multiply);
  // Rows are added up by 32: tiles of equal height would fill no vector.
  for (Span tile = rows; tile.begin < rows.end; tile.begin = tile.end) {
    tile.end = std::min(rows.end, tile.begin + kMaxRows);
    multiply(tile);
  }
}

// The blocks that one row can be multiplied by straight from their codes; they end where a word of planes does.
std::size_t GemmStep::one_row_blocks(std::size_t batch) const {
  const LayerShape& shape = layer_.shape;
  if (total_rows(batch) != 1 || rows_ != Rows::direct || shape.groups != 1 || shape.reduction() % kStep != 0 ||
      layer_.codec == Codec::float32 || layer_.codec == Codec::apb)
    return 0;
  return shape.out % kBlock == 0 ? shape.out / kBlock : shape.out / Panels::kUnitChannels * 2;
}

void GemmStep::run_one_row(const Call& call, const std::uint8_t* input, std::size_t blocks) const {
  constexpr std::size_t kBlocksAtOnce = kAccumulators / kBlock;
  const std::size_t block_codes = layer_.block_bytes(), codes = layer_.shape.count();
  const Span units{0, divide_up(blocks, 2)}, rest{units.end, panels_.units()};
  const std::size_t parts = std::min(call.pool.threads(), units.size());
  call.pool.run(parts + (rest.size() > 0), [&](std::size_t task, std::size_t thread) {
    if (task == parts) return run_part(call, input, {0, 1}, rest, thread);
    auto* const sums = static_cast<std::int32_t*>(carve(call.thread_scratch(thread)).accumulators);
    const Span part = units.part(task, parts);
    for (std::size_t first = 2 * part.begin, end = std::min(2 * part.end, blocks); first < end;
         first += kBlocksAtOnce) {
      const std::size_t count = std::min(kBlocksAtOnce, end - first);
      call.kernels.gemv_u8s8(layer_.codec, input, layer_.k_steps(), layer_.codes.data(), codes, first * block_codes,
                             count, sums);
      store_outputs(call, layer_, finish_, {0, 1, first * kBlock, count * kBlock}, sums, count * kBlock);
    }
  });
}

}  // namespace bitplan
