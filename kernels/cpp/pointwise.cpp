// Element-wise operations without weights: activate, add, mul, scale shift, and the change from f32 to codes. Values
// in u8 pass through f32 in runs that stay in L1.
#include <cstring>

#include "step.h"

namespace bitplan {
namespace {

// A run of elements of one value as f32: itself, or dequantised into `buffer`.
const float* read_run(const Call& call, const Value& value, std::size_t first, std::size_t n, float* buffer) {
  if (value.format == Format::f32) return call.at<float>(value) + first;
  call.kernels.dequantise(call.at<std::uint8_t>(value) + first, n, value.range, buffer);
  return buffer;
}

// Where f32 results go before `finish_run`.
float* target_run(const Call& call, const Value& out, std::size_t first, float* buffer) {
  return out.format == Format::f32 ? call.at<float>(out) + first : buffer;
}

void finish_run(const Call& call, const Value& out, std::size_t first, std::size_t n, const float* result) {
  if (out.format == Format::u8) call.kernels.quantise(result, n, out.range, call.at<std::uint8_t>(out) + first);
}

class PointwiseStep : public Step {
 public:
  PointwiseStep(const Node& node, const std::vector<Value>& inputs, const Value& out)
      : op_(node.op), inputs_(inputs), out_(out), activation_(node.activation) {
    by_rows_ = op_ == Op::scale_shift || (inputs.size() == 2 && inputs[1].shape != inputs[0].shape);
    if (op_ != Op::scale_shift) return;
    const std::size_t half = node.constants.size() / 2;
    constants_ = AlignedBuffer(2 * round_up(half, kAlignment));
    std::memcpy(scale(), node.constants.data(), half);
    std::memcpy(shift(), node.constants.data() + half, half);
  }

  Scratch scratch(std::size_t) const override { return {0, carve(nullptr).used}; }

  void run(const Call& call) const override {
    const std::size_t total = call.batch * out_.elements();
    if (!by_rows_) {
      call.pool.run(divide_up(total, kChunk), [&](std::size_t task, std::size_t thread) {
        const std::size_t first = task * kChunk;
        run_one(call, first, std::min(kChunk, total - first), first, 0, carve(call.thread_scratch(thread)));
      });
      return;
    }
    const std::size_t channels = out_.channels(), rows = total / channels, per_image = out_.rows();
    const std::size_t rows_per_task = std::max<std::size_t>(kChunk / channels, 1);
    call.pool.run(divide_up(rows, rows_per_task), [&](std::size_t task, std::size_t thread) {
      const Buffers buffers = carve(call.thread_scratch(thread));
      for (std::size_t row = task * rows_per_task; row < std::min(rows, (task + 1) * rows_per_task); ++row)
        for (std::size_t channel = 0; channel < channels; channel += kChunk)
          run_one(call, row * channels + channel, std::min(kChunk, channels - channel),
                  row / per_image * channels + channel, channel, buffers);
    });
  }

 private:
  struct Buffers {
    float *a, *b, *result;
    std::size_t used;
  };

  Buffers carve(std::uint8_t* at) const {
    Carver carver(at);
    Buffers buffers{carver.take<float>(kChunk), carver.take<float>(kChunk), carver.take<float>(kChunk), 0};
    buffers.used = carver.used();
    return buffers;
  }

  float* scale() const { return constants_.as<float>(); }
  float* shift() const { return reinterpret_cast<float*>(constants_.data() + constants_.bytes() / 2); }

  // n elements from `first`; the second operand's begin at `second`, the channel's constants at `channel`.
  void run_one(const Call& call, std::size_t first, std::size_t n, std::size_t second, std::size_t channel,
               const Buffers& buffers) const {
    const KernelTable& kernels = call.kernels;
    const float* a = read_run(call, inputs_[0], first, n, buffers.a);
    float* const result = target_run(call, out_, first, buffers.result);
    switch (op_) {
      case Op::add:
        kernels.add(a, read_run(call, inputs_[1], second, n, buffers.b), n, result);
        break;
      case Op::mul:
        kernels.multiply(a, read_run(call, inputs_[1], second, n, buffers.b), n, result);
        break;
      case Op::scale_shift:
        kernels.scale_shift(a, scale() + channel, shift() + channel, n, result);
        break;
      default:
        std::copy_n(a, n, result);
    }
    if (activation_.kind != ActivationKind::identity) kernels.activate(result, n, activation_);
    finish_run(call, out_, first, n, result);
  }

  Op op_;
  std::vector<Value> inputs_;
  Value out_;
  Activation activation_;
  bool by_rows_ = false;
  AlignedBuffer constants_;
};

// To u8, in runs of any length.
class QuantiseStep : public Step {
 public:
  QuantiseStep(const Value& in, const Value& out) : in_(in), out_(out) {}

  void run(const Call& call) const override {
    const std::size_t total = call.batch * out_.elements();
    call.pool.run(divide_up(total, kChunk), [&](std::size_t task, std::size_t) {
      const std::size_t first = task * kChunk;
      call.kernels.quantise(call.at<float>(in_) + first, std::min(kChunk, total - first), out_.range,
                            call.at<std::uint8_t>(out_) + first);
    });
  }

 private:
  Value in_, out_;
};

// To planes of bits, row by row.
class PackStep : public Step {
 public:
  PackStep(const Value& in, const Value& out) : in_(in), out_(out) {}

  void run(const Call& call) const override {
    const std::size_t channels = out_.channels(), rows = call.batch * out_.rows();
    const std::size_t rows_per_task = std::max<std::size_t>(kChunk / channels, 1);
    call.pool.run(divide_up(rows, rows_per_task), [&](std::size_t task, std::size_t) {
      for (std::size_t row = task * rows_per_task; row < std::min(rows, (task + 1) * rows_per_task); ++row)
        call.kernels.pack_codes(call.at<float>(in_) + row * channels, channels, out_.format, out_.range,
                                reinterpret_cast<std::uint32_t*>(call.at<std::uint8_t>(out_) + row * out_.row_bytes()));
    });
  }

 private:
  Value in_, out_;
};

}  // namespace

std::unique_ptr<Step> make_pointwise(const Node& node, const std::vector<Value>& inputs, const Value& out) {
  return std::make_unique<PointwiseStep>(node, inputs, out);
}

std::unique_ptr<Step> make_conversion(const Value& in, const Value& out) {
  if (has_planes(out.format)) return std::make_unique<PackStep>(in, out);
  return std::make_unique<QuantiseStep>(in, out);
}

}  // namespace bitplan
