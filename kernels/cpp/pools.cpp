// Max and average pools over windows, and the mean over whole images.
#include <cmath>
#include <limits>

#include "step.h"

namespace bitplan {
namespace {

// The taps of a window that lie in the image, along one axis.
struct Taps {
  std::size_t first, count, step;
};

Taps taps_of(const Window& window, std::size_t axis, std::size_t position, std::size_t size) {
  const auto step = std::int64_t(window.dilation[axis]), kernel = std::int64_t(window.kernel[axis]);
  const std::int64_t start = std::int64_t(position * window.stride[axis]) - window.padding[2 * axis];
  const std::int64_t skipped = start < 0 ? std::min((-start + step - 1) / step, kernel) : 0;
  const std::int64_t left = std::int64_t(size) - (start + skipped * step);
  const std::int64_t fit = left > 0 ? (left + step - 1) / step : 0;
  return {std::size_t(std::max<std::int64_t>(start + skipped * step, 0)), std::size_t(std::min(fit, kernel - skipped)),
          std::size_t(step)};
}

class WindowStep : public Step {
 public:
  WindowStep(const Node& node, const Value& in, const Value& out) : window_(node.window), in_(in), out_(out) {}

  Scratch scratch(std::size_t) const override { return {0, 3 * (kChunk + kAlignment) * sizeof(float)}; }

  void run(const Call& call) const override {
    const std::size_t height = out_.shape[1], width = out_.shape[2];
    call.pool.run(call.batch * height, [&](std::size_t line, std::size_t thread) {
      const Taps down = taps_of(window_, 0, line % height, in_.shape[1]);
      for (std::size_t x = 0; x < width; ++x) {
        const Taps across = taps_of(window_, 1, x, in_.shape[2]);
        for (std::size_t channel = 0; channel < in_.channels(); channel += kChunk)
          pool(call, line / height, down, across, channel, std::min(kChunk, in_.channels() - channel),
               (line * width + x) * in_.channels() + channel, reinterpret_cast<float*>(call.thread_scratch(thread)));
      }
    });
  }

 protected:
  // n channels of one output pixel, whose elements begin at `target`; `buffer` holds 3 kChunk floats.
  virtual void pool(const Call& call, std::size_t image, const Taps& down, const Taps& across, std::size_t channel,
                    std::size_t n, std::size_t target, float* buffer) const = 0;

  // Calls visit(pointer to n channels) for each tap.
  template <typename T, typename Visit>
  void each_tap(const Call& call, std::size_t image, const Taps& down, const Taps& across, std::size_t channel,
                const Visit& visit) const {
    for (std::size_t i = 0; i < down.count; ++i)
      for (std::size_t j = 0; j < across.count; ++j) {
        const std::size_t y = down.first + i * down.step, x = across.first + j * across.step;
        visit(call.at<T>(in_) + ((image * in_.shape[1] + y) * in_.shape[2] + x) * in_.channels() + channel);
      }
  }

  Window window_;
  Value in_, out_;
};

// Padding counts as minus infinity. In u8 the codes themselves are compared.
class MaxPoolStep : public WindowStep {
 public:
  using WindowStep::WindowStep;

 protected:
  void pool(const Call& call, std::size_t image, const Taps& down, const Taps& across, std::size_t channel,
            std::size_t n, std::size_t target, float* buffer) const override {
    if (in_.format == Format::f32) {
      float* const best = call.at<float>(out_) + target;
      std::fill_n(best, n, -std::numeric_limits<float>::infinity());
      each_tap<float>(call, image, down, across, channel, [&](const float* x) { call.kernels.max_f32(x, n, best); });
      return;
    }
    std::uint8_t* const best = call.at<std::uint8_t>(out_) + target;
    std::fill_n(best, n, std::uint8_t(0));
    each_tap<std::uint8_t>(call, image, down, across, channel,
                           [&](const std::uint8_t* x) { call.kernels.max_u8(x, n, best); });
    if (!same_range(in_.range, out_.range)) {
      call.kernels.dequantise(best, n, in_.range, buffer);
      call.kernels.quantise(buffer, n, out_.range, best);
    }
  }
};

class AveragePoolStep : public WindowStep {
 public:
  AveragePoolStep(const Node& node, const Value& in, const Value& out)
      : WindowStep(node, in, out), count_padding_(node.count_padding) {}

 protected:
  void pool(const Call& call, std::size_t image, const Taps& down, const Taps& across, std::size_t channel,
            std::size_t n, std::size_t target, float* buffer) const override {
    const KernelTable& kernels = call.kernels;
    const bool floats = out_.format == Format::f32;
    float* const sum = floats ? call.at<float>(out_) + target : buffer;
    float* const tap = buffer + kChunk + kAlignment;
    std::fill_n(sum, n, 0.0f);
    if (in_.format == Format::f32)
      each_tap<float>(call, image, down, across, channel, [&](const float* x) { kernels.accumulate(x, n, sum); });
    else
      each_tap<std::uint8_t>(call, image, down, across, channel, [&](const std::uint8_t* q) {
        kernels.dequantise(q, n, in_.range, tap);
        kernels.accumulate(tap, n, sum);
      });
    const std::size_t all = std::size_t(window_.kernel[0]) * window_.kernel[1];
    const std::size_t count = count_padding_ ? all : std::max<std::size_t>(down.count * across.count, 1);
    for (std::size_t i = 0; i < n; ++i) sum[i] /= float(count);
    if (!floats) kernels.quantise(sum, n, out_.range, call.at<std::uint8_t>(out_) + target);
  }

 private:
  bool count_padding_;
};

// Sums lines first and then the sums of lines: half the digits are lost of what one long sum would lose.
class MeanStep : public Step {
 public:
  MeanStep(const Value& in, const Value& out) : in_(in), out_(out) {}

  Scratch scratch(std::size_t) const override { return {0, 3 * (kStrip + kAlignment) * sizeof(float)}; }

  void run(const Call& call) const override {
    const std::size_t channels = in_.channels(), strips = divide_up(channels, kStrip);
    call.pool.run(call.batch * strips, [&](std::size_t task, std::size_t thread) {
      const std::size_t channel = task % strips * kStrip;
      mean(call, task / strips, channel, std::min(kStrip, channels - channel),
           reinterpret_cast<float*>(call.thread_scratch(thread)));
    });
  }

 private:
  static constexpr std::size_t kStrip = 256;

  void mean(const Call& call, std::size_t image, std::size_t channel, std::size_t n, float* buffer) const {
    const KernelTable& kernels = call.kernels;
    const std::size_t channels = in_.channels(), height = in_.shape[1], width = in_.shape[2];
    float* const total = buffer;
    float* const line = total + kStrip + kAlignment;
    float* const pixel = line + kStrip + kAlignment;
    std::fill_n(total, n, 0.0f);
    for (std::size_t y = 0; y < height; ++y) {
      std::fill_n(line, n, 0.0f);
      for (std::size_t x = 0; x < width; ++x) {
        const std::size_t element = ((image * height + y) * width + x) * channels + channel;
        if (in_.format == Format::f32) {
          kernels.accumulate(call.at<float>(in_) + element, n, line);
        } else {
          kernels.dequantise(call.at<std::uint8_t>(in_) + element, n, in_.range, pixel);
          kernels.accumulate(pixel, n, line);
        }
      }
      kernels.accumulate(line, n, total);
    }
    const auto count = float(height * width);
    for (std::size_t i = 0; i < n; ++i) total[i] /= count;
    const std::size_t target = image * channels + channel;
    if (out_.format == Format::f32)
      std::copy_n(total, n, call.at<float>(out_) + target);
    else
      kernels.quantise(total, n, out_.range, call.at<std::uint8_t>(out_) + target);
  }

  Value in_, out_;
};

}  // namespace

std::unique_ptr<Step> make_pool(const Node& node, const std::vector<Value>& inputs, const Value& out) {
  if (node.op == Op::max_pool) return std::make_unique<MaxPoolStep>(node, inputs[0], out);
  return std::make_unique<AveragePoolStep>(node, inputs[0], out);
}

std::unique_ptr<Step> make_mean(const std::vector<Value>& inputs, const Value& out) {
  return std::make_unique<MeanStep>(inputs[0], out);
}

}  // namespace bitplan
