// Depthwise convolutions: the taps of a pixel are addressed through a table of pointers; padding is one row of the
// padding code.
#include "epilogue.h"
#include "layer.h"
#include "step.h"

namespace bitplan {
namespace {

class DepthwiseStep : public Step {
 public:
  DepthwiseStep(Layer layer, const Node& node, const std::vector<Value>& inputs, const Outputs& outputs)
      : layer_(std::move(layer)),
        in_(inputs[0]),
        finish_(node, inputs, outputs),
        window_(node.window),
        padding_(in_.row_bytes()) {
    // The range of f32 has the zero point 0, which is x = 0 bytewise too.
    std::fill_n(padding_.data(), padding_.bytes(), std::uint8_t(in_.range.padding()));
    // Accumulators of a tile stay within L1.
    tile_ = std::clamp<std::size_t>(kTileBytes / (4 * out().channels()), 1, kMaxRows);
  }

  Scratch scratch(std::size_t) const override { return {0, carve(nullptr).used}; }

  void run(const Call& call) const override {
    const std::size_t rows = call.batch * out().rows();
    call.pool.run(divide_up(rows, tile_), [&](std::size_t task, std::size_t thread) {
      const std::size_t first = task * tile_;
      run_tile(call, first, std::min(tile_, rows - first), carve(call.thread_scratch(thread)));
    });
  }

 private:
  static constexpr std::size_t kTileBytes = 16384;

  struct ThreadScratch {
    const std::uint8_t** pointers;
    float* accumulators;
    std::size_t used;
  };

  const Value& out() const { return finish_.outputs.front(); }
  std::size_t taps() const { return layer_.shape.reduction(); }

  ThreadScratch carve(std::uint8_t* at) const {
    Carver carver(at);
    ThreadScratch scratch{};
    scratch.pointers = carver.take<const std::uint8_t*>(tile_ * taps());
    scratch.accumulators = carver.take<float>(tile_ * out().channels());
    scratch.used = carver.used();
    return scratch;
  }

  void point(const Call& call, std::size_t first, std::size_t count, const std::uint8_t** pointers) const {
    const std::size_t height = in_.shape[1], width = in_.shape[2], pixel = in_.row_bytes();
    const std::size_t out_width = out().shape[2], pixels = out().rows();
    for (std::size_t row = first; row < first + count; ++row) {
      const std::uint8_t* const base = call.at<std::uint8_t>(in_) + row / pixels * height * width * pixel;
      const auto top = std::int64_t(row % pixels / out_width * window_.stride[0]) - window_.padding[0];
      const auto left = std::int64_t(row % out_width * window_.stride[1]) - window_.padding[2];
      for (std::size_t ky = 0; ky < window_.kernel[0]; ++ky) {
        const std::int64_t y = top + std::int64_t(ky * window_.dilation[0]);
        for (std::size_t kx = 0; kx < window_.kernel[1]; ++kx) {
          const std::int64_t x = left + std::int64_t(kx * window_.dilation[1]);
          const bool inside = y >= 0 && y < std::int64_t(height) && x >= 0 && x < std::int64_t(width);
          *pointers++ = inside ? base + (std::size_t(y) * width + std::size_t(x)) * pixel : padding_.data();
        }
      }
    }
  }

  void run_tile(const Call& call, std::size_t first, std::size_t count, const ThreadScratch& scratch) const {
    const std::size_t channels = out().channels();
    const Tile tile{first, count, 0, channels};
    point(call, first, count, scratch.pointers);
    if (in_.format == Format::f32) {
      call.kernels.depthwise_f32(reinterpret_cast<const float* const*>(scratch.pointers), count, taps(), channels,
                                 layer_.codes.as<float>(), scratch.accumulators, channels);
      store_outputs(call, layer_, finish_, tile, scratch.accumulators, channels);
      return;
    }
    auto* const sums = reinterpret_cast<std::int32_t*>(scratch.accumulators);
    call.kernels.depthwise_u8s8(scratch.pointers, count, taps(), channels, layer_.codes.as<std::int8_t>(), sums,
                                channels);
    store_outputs(call, layer_, finish_, tile, sums, channels);
  }

  Layer layer_;
  Value in_;
  Finish finish_;
  Window window_;
  AlignedBuffer padding_;
  std::size_t tile_ = 1;
};

}  // namespace

std::unique_ptr<Step> make_depthwise(const Node& node, const std::vector<Value>& inputs, const Outputs& outputs,
                                     const KernelTable& kernels, std::size_t& resident_bytes) {
  Layer layer = prepare_layer(node, inputs[0].range, kernels);
  resident_bytes += layer.resident_bytes();
  return std::make_unique<DepthwiseStep>(std::move(layer), node, inputs, outputs);
}

}  // namespace bitplan
