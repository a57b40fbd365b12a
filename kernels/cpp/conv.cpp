// Convolutions: a row holds the inputs of one output pixel as [kernel height][kernel width][channel]. A 1 x 1 kernel
// with stride 1 and no padding reads the image itself.
#include "copy.h"
#include "gemm_step.h"

namespace bitplan {
namespace {

class ConvStep : public GemmStep {
 public:
  ConvStep(Layer layer, const Node& node, const std::vector<Value>& inputs, const Value& out)
      : GemmStep(std::move(layer), node, inputs, out),
        window_(node.window),
        direct_(window_.kernel == std::array{1u, 1u} && window_.stride == std::array{1u, 1u} &&
                window_.padding == std::array{0u, 0u, 0u, 0u}) {}

 protected:
  bool direct() const override { return direct_; }

  void pack(const Call& call, std::size_t group, std::size_t first, std::size_t count,
            std::uint8_t* target) const override {
    const std::size_t width = out_.shape[2], pixels = out_.rows();
    for (std::size_t row = first; row < first + count; ++row, target += row_bytes())
      pack_row(call, group, row / pixels, row % pixels / width, row % width, target);
  }

 private:
  void pack_row(const Call& call, std::size_t group, std::size_t image, std::size_t y, std::size_t x,
                std::uint8_t* target) const {
    const std::size_t element = element_bytes(in_.format);
    const std::size_t height = in_.shape[1], width = in_.shape[2];
    const std::size_t pixel = in_.channels() * element;                        // bytes of a pixel
    const std::size_t part = layer_.shape.in / layer_.shape.groups * element;  // bytes of a group's share of it
    const std::size_t line = window_.kernel[1] * part;                         // bytes of a line of the kernel
    const int padding = in_.format == Format::u8 ? in_.range.zero_point : 0;   // x = 0, bytewise in f32 too
    const std::uint8_t* const base = call.at<std::uint8_t>(in_) + image * height * width * pixel + group * part;
    const auto top = std::int64_t(y * window_.stride[0]) - window_.padding[0];
    const auto left = std::int64_t(x * window_.stride[1]) - window_.padding[2];
    const bool contiguous = layer_.shape.groups == 1 && window_.dilation[1] == 1;
    for (std::size_t ky = 0; ky < window_.kernel[0]; ++ky, target += line) {
      const std::int64_t in_y = top + std::int64_t(ky * window_.dilation[0]);
      if (in_y < 0 || in_y >= std::int64_t(height)) {
        std::memset(target, padding, line);
        continue;
      }
      const std::uint8_t* const source = base + std::size_t(in_y) * width * pixel;
      if (contiguous) {
        const auto kernel = std::int64_t(window_.kernel[1]);
        const std::int64_t from = std::clamp<std::int64_t>(-left, 0, kernel);
        const std::int64_t to = std::clamp<std::int64_t>(std::int64_t(width) - left, from, kernel);
        if (from > 0) std::memset(target, padding, std::size_t(from) * part);
        if (to > from)
          copy_bytes(target + std::size_t(from) * part, source + std::size_t(left + from) * part,
                     std::size_t(to - from) * part);
        if (to < kernel) std::memset(target + std::size_t(to) * part, padding, std::size_t(kernel - to) * part);
        continue;
      }
      for (std::size_t kx = 0; kx < window_.kernel[1]; ++kx) {
        const std::int64_t in_x = left + std::int64_t(kx * window_.dilation[1]);
        if (in_x < 0 || in_x >= std::int64_t(width))
          std::memset(target + kx * part, padding, part);
        else
          copy_bytes(target + kx * part, source + std::size_t(in_x) * pixel, part);
      }
    }
    std::memset(target, 0, row_bytes() - window_.kernel[0] * line);
  }

  Window window_;
  bool direct_;
};

}  // namespace

std::unique_ptr<Step> make_conv2d(const Node& node, const std::vector<Value>& inputs, const Value& out,
                                  const KernelTable& kernels, std::size_t& resident_bytes) {
  Layer layer = prepare_layer(node, inputs[0].range, kernels);
  resident_bytes += layer.resident_bytes();
  return std::make_unique<ConvStep>(std::move(layer), node, inputs, out);
}

}  // namespace bitplan
