// Softmax over the channels of an image, else over the last axis: contiguous in memory either way. Reads f32.
#include <cmath>

#include "step.h"

namespace bitplan {
namespace {

class SoftmaxStep : public Step {
 public:
  SoftmaxStep(const Value& in, const Value& out) : in_(in), out_(out) {}

  Scratch scratch(std::size_t) const override { return {0, (out_.channels() + kAlignment) * sizeof(float)}; }

  void run(const Call& call) const override {
    const std::size_t rows = call.batch * out_.rows(),
                      rows_per_task = std::max<std::size_t>(kChunk / out_.channels(), 1);
    call.pool.run(divide_up(rows, rows_per_task), [&](std::size_t task, std::size_t thread) {
      for (std::size_t row = task * rows_per_task; row < std::min(rows, (task + 1) * rows_per_task); ++row)
        run_row(call, row, reinterpret_cast<float*>(call.thread_scratch(thread)));
    });
  }

 private:
  void run_row(const Call& call, std::size_t row, float* buffer) const {
    const std::size_t n = out_.channels();
    const float* const x = call.at<float>(in_) + row * n;
    const bool floats = out_.format == Format::f32;
    float* const y = floats ? call.at<float>(out_) + row * n : buffer;
    const float largest = *std::max_element(x, x + n);
    float sum = 0;
    for (std::size_t i = 0; i < n; ++i) sum += y[i] = std::exp(x[i] - largest);
    for (std::size_t i = 0; i < n; ++i) y[i] /= sum;
    if (!floats) call.kernels.quantise(y, n, out_.range, call.at<std::uint8_t>(out_) + row * n);
  }

  Value in_, out_;
};

}  // namespace

std::unique_ptr<Step> make_softmax(const std::vector<Value>& inputs, const Value& out) {
  return std::make_unique<SoftmaxStep>(inputs[0], out);
}

}  // namespace bitplan
