// The caller's array, channels first, becomes the network's first value: (x - mean) / std, stored [H][W][C].
#include "step.h"

namespace bitplan {
namespace {

class InputStep : public Step {
 public:
  InputStep(const Preprocessing& preprocessing, std::size_t number, const Value& out, const KernelTable& kernels)
      : number_(number), out_(out) {
    // Vectors pass as they are; so do images where no mean is stated.
    mean_.assign(out.image() ? out.channels() : 1, 0.0f);
    std_.assign(mean_.size(), 1.0f);
    if (out.image() && !preprocessing.mean.empty()) {
      mean_ = preprocessing.mean;
      std_ = preprocessing.std;
    }
    fill_tables(kernels);
  }

  Scratch scratch(std::size_t) const override { return {0, (2 * line_elements() + kAlignment) * sizeof(float)}; }

  // Lines of an image, or all of a value that is none, are the unit of work.
  void run(const Call& call) const override {
    const RawArray& raw = call.inputs[number_];
    const std::size_t lines = out_.image() ? out_.shape[1] : 1;
    const std::size_t channels = mean_.size(), width = line_width();
    call.pool.run(call.batch * lines, [&](std::size_t task, std::size_t thread) {
      const std::size_t image = task / lines, line = task % lines, target = task * line_elements();
      const std::size_t source = image * out_.elements() + line * line_elements() / mean_.size();
      if (raw.format == Format::f32)
        from_floats(call, static_cast<const float*>(raw.data) + source, target,
                    reinterpret_cast<float*>(call.thread_scratch(thread)));
      else if (out_.format == Format::f32)
        call.kernels.look_up_f32(tables_.as<float>(), static_cast<const std::uint8_t*>(raw.data) + source, plane(),
                                 width, channels, call.at<float>(out_) + target);
      else
        call.kernels.look_up_u8(tables_.data(), static_cast<const std::uint8_t*>(raw.data) + source, plane(), width,
                                channels, call.at<std::uint8_t>(out_) + target);
    });
  }

 private:
  std::size_t line_elements() const { return out_.elements() / (out_.image() ? out_.shape[1] : 1); }
  // Elements between two channels of the caller's image, and of one channel in a line.
  std::size_t plane() const { return out_.elements() / mean_.size(); }
  std::size_t line_width() const { return line_elements() / mean_.size(); }

  // What each byte becomes, by channel, in the format of the value.
  void fill_tables(const KernelTable& kernels) {
    same_ = AlignedBuffer(mean_.size() * 256);
    for (std::size_t i = 0; i < same_.bytes(); ++i) same_.data()[i] = std::uint8_t(i);
    tables_ = AlignedBuffer(mean_.size() * 256 * element_bytes(out_.format));
    float values[256];
    for (std::size_t c = 0; c < mean_.size(); ++c) {
      for (int byte = 0; byte < 256; ++byte) values[byte] = (float(byte) - mean_[c]) / std_[c];
      if (out_.format == Format::u8)
        kernels.quantise(values, 256, out_.range, tables_.data() + 256 * c);
      else
        std::copy_n(values, 256, tables_.as<float>() + 256 * c);
    }
  }

  void from_floats(const Call& call, const float* raw, std::size_t target, float* buffer) const {
    const KernelTable& kernels = call.kernels;
    const std::size_t channels = mean_.size(), width = line_width(), line = line_elements();
    for (std::size_t c = 0; c < channels; ++c)
      kernels.normalise(raw + c * plane(), width, mean_[c], std_[c], buffer + c * width);
    if (out_.format == Format::f32)
      return kernels.interleave_f32(buffer, width, width, channels, call.at<float>(out_) + target);
    auto* const codes = reinterpret_cast<std::uint8_t*>(buffer + line);
    kernels.quantise(buffer, line, out_.range, codes);
    kernels.look_up_u8(same_.data(), codes, width, width, channels, call.at<std::uint8_t>(out_) + target);
  }

  std::size_t number_;
  Value out_;
  std::vector<float> mean_, std_;
  AlignedBuffer tables_, same_;
};

}  // namespace

std::unique_ptr<Step> make_input(const Preprocessing& preprocessing, std::size_t input_number, const Value& out,
                                 const KernelTable& kernels) {
  return std::make_unique<InputStep>(preprocessing, input_number, out, kernels);
}

}  // namespace bitplan
