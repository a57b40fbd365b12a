// Depthwise convolutions: a tile is some lines of the output by some channels. The pixels that it meets are addressed
// through tables of pointers, one for each line of the input; padding is one row of the padding code.
#include "epilogue.h"
#include "layer.h"
#include "step.h"
#include "work_split.h"

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
    most_pixels_ = std::min(std::max<std::size_t>(kTilePixels / window_.stride[1], 1), out_width());
    most_lines_ = std::min(std::max<std::size_t>(kTilePixels / window_.stride[1] / most_pixels_, 1), out_height());
  }

  Scratch scratch(std::size_t) const override { return {0, carve(nullptr).used}; }

  void run(const Call& call) const override {
    const std::size_t units = divide_up(out().channels(), kTileChannels);
    share_work(call.pool, call.batch * out_height(), units, kWeightLines,
               [&](Span lines, Span part, std::size_t thread) {
                 const ThreadScratch scratch = carve(call.thread_scratch(thread));
                 std::fill_n(scratch.padding, most_columns(), padding_.data());
                 while (lines.size() > 0) {
                   const std::size_t image = lines.begin / out_height(), line = lines.begin % out_height();
                   const std::size_t count = std::min({most_lines_, lines.size(), out_height() - line});
                   for (std::size_t pixel = 0; pixel < out_width(); pixel += most_pixels_)
                     run_tile(call, Place{image, line, count, pixel, std::min(most_pixels_, out_width() - pixel)}, part,
                              scratch);
                   lines.begin += count;
                 }
               });
  }

 private:
  // Of a tile: pixels along a row of the input that fit L1 with what the kernel's other lines meet and with the
  // accumulators, and channels that fill a word of planes.
  static constexpr std::size_t kTilePixels = 64, kTileChannels = 32;
  static constexpr std::size_t kWeightLines = 1;  // of the output, whose products take as long as arranging the weights

  // Pixels [pixel, pixel + pixels) of lines [line, line + lines) of an image of the output.
  struct Place {
    std::size_t image, line, lines, pixel, pixels;
  };

  struct ThreadScratch {
    const std::uint8_t** columns;       // [input line of the tile][most_columns()]
    const std::uint8_t** padding;       // the same of a line outside of the image
    const std::uint8_t* const** lines;  // [line of the tile][line of the kernel]
    float* accumulators;
    std::size_t used;
  };

  const Value& out() const { return finish_.outputs.front(); }
  std::size_t out_height() const { return out().shape[1]; }
  std::size_t out_width() const { return out().shape[2]; }

  DepthwiseTile tile(const Place& place) const {
    return {.height = window_.kernel[0],
            .width = window_.kernel[1],
            .stride = window_.stride[1],
            .dilation = window_.dilation[1],
            .rows = place.lines,
            .pixels = place.pixels,
            .first = 0,
            .channels = out().channels(),
            .w_stride = out().channels()};
  }
  std::size_t most_columns() const { return tile({0, 0, most_lines_, 0, most_pixels_}).columns(); }
  // Lines of the input from the first to the last one that so many lines of the output meet.
  std::size_t input_lines(std::size_t lines) const {
    return (lines - 1) * window_.stride[0] + (window_.kernel[0] - 1) * window_.dilation[0] + 1;
  }

  ThreadScratch carve(std::uint8_t* at) const {
    Carver carver(at);
    ThreadScratch scratch{};
    scratch.columns = carver.take<const std::uint8_t*>(input_lines(most_lines_) * most_columns());
    scratch.padding = carver.take<const std::uint8_t*>(most_columns());
    scratch.lines = carver.take<const std::uint8_t* const*>(most_lines_ * window_.kernel[0]);
    scratch.accumulators = carver.take<float>(kTilePixels * kTileChannels);
    scratch.used = carver.used();
    return scratch;
  }

  // Points to `count` pixels of a line of the input, the first one of which is `left`.
  void point(const std::uint8_t* line, std::ptrdiff_t left, std::size_t count, const std::uint8_t** columns) const {
    const std::size_t pixel = in_.row_bytes();
    const auto end = std::ptrdiff_t(count), inside = std::clamp<std::ptrdiff_t>(-left, 0, end);
    const std::ptrdiff_t behind = std::clamp<std::ptrdiff_t>(std::ptrdiff_t(in_.shape[2]) - left, inside, end);
    std::fill(columns, columns + inside, padding_.data());
    for (std::ptrdiff_t x = inside; x < behind; ++x) columns[x] = line + std::size_t(left + x) * pixel;
    std::fill(columns + behind, columns + end, padding_.data());
  }

  void point(const Call& call, const Place& place, std::size_t columns, const ThreadScratch& scratch) const {
    const std::size_t height = in_.shape[1], line_bytes = in_.shape[2] * in_.row_bytes();
    const std::uint8_t* const image = call.at<std::uint8_t>(in_) + place.image * height * line_bytes;
    const auto top = std::ptrdiff_t(place.line * window_.stride[0]) - std::ptrdiff_t(window_.padding[0]);
    const auto left = std::ptrdiff_t(place.pixel * window_.stride[1]) - std::ptrdiff_t(window_.padding[2]);
    const auto inside = [&](std::size_t i) {
      return std::size_t(top) + i < height;
    };  // beyond any height where negative
    for (std::size_t i = 0; i < input_lines(place.lines); ++i)
      if (inside(i)) point(image + (std::size_t(top) + i) * line_bytes, left, columns, scratch.columns + i * columns);
    const std::uint8_t* const** to = scratch.lines;
    for (std::size_t row = 0; row < place.lines; ++row)
      for (std::size_t y = 0; y < window_.kernel[0]; ++y) {
        const std::size_t i = row * window_.stride[0] + y * window_.dilation[0];
        *to++ = inside(i) ? scratch.columns + i * columns : scratch.padding;
      }
  }

  void run_tile(const Call& call, const Place& place, Span units, const ThreadScratch& scratch) const {
    DepthwiseTile part = tile(place);
    point(call, place, part.columns(), scratch);
    for (std::size_t unit = units.begin; unit < units.end; ++unit) {
      part.first = unit * kTileChannels;
      part.channels = std::min(kTileChannels, out().channels() - part.first);
      const std::size_t first_row = (place.image * out_height() + place.line) * out_width() + place.pixel;
      const Tile to{first_row, place.lines * place.pixels, part.first, part.channels};
      if (in_.format == Format::f32) {
        call.kernels.depthwise_f32(reinterpret_cast<const float* const* const*>(scratch.lines), part,
                                   layer_.codes.as<float>(), scratch.accumulators, part.channels);
        store_outputs(call, layer_, finish_, to, scratch.accumulators, part.channels);
      } else {
        auto* const sums = reinterpret_cast<std::int32_t*>(scratch.accumulators);
        call.kernels.depthwise_u8s8(scratch.lines, part, layer_.codes.as<std::int8_t>(), sums, part.channels);
        store_outputs(call, layer_, finish_, to, sums, part.channels);
      }
    }
  }

  Layer layer_;
  Value in_;
  Finish finish_;
  Window window_;
  AlignedBuffer padding_;
  std::size_t most_pixels_ = 1, most_lines_ = 1;  // of a tile
};

}  // namespace

std::unique_ptr<Step> make_depthwise(const Node& node, const std::vector<Value>& inputs, const Outputs& outputs,
                                     const KernelTable& kernels, std::size_t& resident_bytes) {
  Layer layer = prepare_layer(node, inputs[0].range, kernels);
  resident_bytes += layer.resident_bytes();
  return std::make_unique<DepthwiseStep>(std::move(layer), node, inputs, outputs);
}

}  // namespace bitplan
