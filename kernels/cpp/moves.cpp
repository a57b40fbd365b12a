// Operations that only move elements: concat, pad, slice, reshape, permute. Each is a list of strided copies between
// the orders in which values lie in memory; runs are converted on the way where formats or ranges differ.
#include <cstring>
#include <numeric>

#include "step.h"

namespace bitplan {
namespace {

// A copy is cut along its outermost axis where the parts of the output keep this many elements.
constexpr std::size_t kPartElements = 16384;

// Element (i0, i1, ..) goes from source + sum i * from to target + sum i * to, all in elements of one image.
struct StridedCopy {
  std::size_t input = 0;  // which input
  std::size_t source = 0, target = 0;
  std::vector<std::size_t> sizes, from, to;
};

// Sizes of the axes as they lie in memory, outermost first.
std::vector<std::size_t> stored_sizes(const Shape& shape) {
  if (shape.size() == 3) return {shape[1], shape[2], shape[0]};
  return {shape.begin(), shape.end()};
}

// Strides in memory of the axes as the shape names them.
std::vector<std::size_t> strides(const Shape& shape) {
  if (shape.size() == 3) return {1, std::size_t(shape[2]) * shape[0], shape[0]};
  std::vector<std::size_t> result(shape.size(), 1);
  for (std::size_t axis = shape.size() - 1; axis > 0; --axis) result[axis - 1] = result[axis] * shape[axis];
  return result;
}

// Axes of an image are visited as they lie in memory.
std::vector<std::size_t> stored_axes(std::size_t rank) {
  if (rank == 3) return {1, 2, 0};
  std::vector<std::size_t> axes(rank);
  for (std::size_t axis = 0; axis < rank; ++axis) axes[axis] = axis;
  return axes;
}

// Drops axes of size one and joins neighbours that are contiguous on both sides.
void simplify(StridedCopy& copy) {
  std::vector<std::size_t> sizes, from, to;
  for (std::size_t axis = 0; axis < copy.sizes.size(); ++axis) {
    if (copy.sizes[axis] == 1) continue;
    const std::size_t span = copy.sizes[axis];
    if (!sizes.empty() && from.back() == span * copy.from[axis] && to.back() == span * copy.to[axis]) {
      sizes.back() *= span;
      from.back() = copy.from[axis];
      to.back() = copy.to[axis];
    } else {
      sizes.push_back(span);
      from.push_back(copy.from[axis]);
      to.push_back(copy.to[axis]);
    }
  }
  if (sizes.empty()) sizes = from = to = {1};
  copy.sizes = sizes, copy.from = from, copy.to = to;
}

std::vector<StridedCopy> concat_copies(const std::vector<Value>& inputs, const Value& out) {
  std::vector<StridedCopy> copies;
  std::size_t target = 0;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const Shape& shape = inputs[i].shape;
    const std::vector<std::size_t> from = strides(shape), to = strides(out.shape);
    StridedCopy copy{i, 0, target, {}, {}, {}};
    for (const std::size_t axis : stored_axes(shape.size())) {
      copy.sizes.push_back(shape[axis]);
      copy.from.push_back(from[axis]);
      copy.to.push_back(to[axis]);
    }
    copies.push_back(copy);
    target += shape[0] * to[0];
  }
  return copies;
}

StridedCopy pad_copy(const Node& node, const Value& in, const Value& out) {
  const std::vector<std::size_t> from = strides(in.shape), to = strides(out.shape);
  StridedCopy copy;
  copy.target = node.pad_channels[0] * to[0] + node.window.padding[0] * to[1] + node.window.padding[2] * to[2];
  copy.sizes = stored_sizes(in.shape);
  copy.from = {from[1], from[2], from[0]};
  copy.to = {to[1], to[2], to[0]};
  return copy;
}

StridedCopy slice_copy(const Node& node, const Value& in, const Value& out) {
  const std::vector<std::size_t> from = strides(in.shape), to = strides(out.shape);
  StridedCopy copy;
  for (const std::size_t axis : stored_axes(out.shape.size())) {
    copy.source += node.slices[axis].start * from[axis];
    copy.sizes.push_back(out.shape[axis]);
    copy.from.push_back(node.slices[axis].step * from[axis]);
    copy.to.push_back(to[axis]);
  }
  return copy;
}

StridedCopy permute_copy(const Node& node, const Value& in, const Value& out) {
  const std::vector<std::size_t> from = strides(in.shape), to = strides(out.shape);
  StridedCopy copy;
  for (const std::size_t axis : stored_axes(out.shape.size())) {
    copy.sizes.push_back(out.shape[axis]);
    copy.from.push_back(from[node.order[axis]]);
    copy.to.push_back(to[axis]);
  }
  return copy;
}

// Elements keep their place in the channels-first order; between two images see ImageReshapeStep.
StridedCopy reshape_copy(const Value& in, const Value& out) {
  if (in.shape == out.shape || (!in.image() && !out.image())) return {0, 0, 0, {in.elements()}, {1}, {1}};
  const Shape& image = in.image() ? in.shape : out.shape;
  const std::vector<std::size_t> stored = strides(image);
  const std::vector<std::size_t> logical = {std::size_t(image[1]) * image[2], image[2], 1};
  return {0, 0, 0, {image[0], image[1], image[2]}, in.image() ? stored : logical, in.image() ? logical : stored};
}

class MoveStep : public Step {
 public:
  MoveStep(std::vector<StridedCopy> copies, const std::vector<Value>& inputs, const Value& out)
      : copies_(std::move(copies)), inputs_(inputs), out_(out) {
    for (StridedCopy& copy : copies_) simplify(copy);
  }

  void fill(float value) {
    fills_ = true;
    fill_ = value;
  }

  Scratch scratch(std::size_t) const override { return {0, 3 * (kChunk + kAlignment) * sizeof(float)}; }

  void run(const Call& call) const override {
    if (fills_) {
      call.pool.run(call.batch, [&](std::size_t image, std::size_t) { fill_image(call, image); });
    }
    const std::size_t parts = std::clamp<std::size_t>(out_.elements() / kPartElements, 1, call.pool.threads());
    call.pool.run(call.batch * copies_.size() * parts, [&](std::size_t task, std::size_t thread) {
      const std::size_t part = task % parts, image = task / parts / copies_.size();
      const StridedCopy& copy = copies_[task / parts % copies_.size()];
      const std::size_t begin = copy.sizes[0] * part / parts, end = copy.sizes[0] * (part + 1) / parts;
      const Value& in = inputs_[copy.input];
      walk(call, in, copy, 0, end - begin, image * in.elements() + copy.source + begin * copy.from[0],
           image * out_.elements() + copy.target + begin * copy.to[0], call.thread_scratch(thread));
    });
  }

 protected:
  void fill_image(const Call& call, std::size_t image) const {
    const std::size_t n = out_.elements();
    if (out_.format == Format::f32) {
      std::fill_n(call.at<float>(out_) + image * n, n, fill_);
      return;
    }
    std::uint8_t code = 0;
    call.kernels.quantise(&fill_, 1, out_.range, &code);
    std::memset(call.at<std::uint8_t>(out_) + image * n, code, n);
  }

  // n places along this axis, and all along the inner ones.
  void walk(const Call& call, const Value& in, const StridedCopy& copy, std::size_t axis, std::size_t n,
            std::size_t source, std::size_t target, std::uint8_t* buffer) const {
    const std::size_t from = copy.from[axis], to = copy.to[axis];
    if (axis + 1 < copy.sizes.size()) {
      for (std::size_t i = 0; i < n; ++i)
        walk(call, in, copy, axis + 1, copy.sizes[axis + 1], source + i * from, target + i * to, buffer);
      return;
    }
    if (in.format == Format::f32 && out_.format == Format::f32)
      move(call.at<float>(in) + source, from, call.at<float>(out_) + target, to, n);
    else if (in.format == out_.format && same_range(in.range, out_.range))
      move(call.at<std::uint8_t>(in) + source, from, call.at<std::uint8_t>(out_) + target, to, n);
    else
      requantise(call, in, call.at<std::uint8_t>(in) + source, from, call.at<std::uint8_t>(out_) + target, to, n,
                 buffer);
  }

  template <typename T>
  static void move(const T* source, std::size_t from, T* target, std::size_t to, std::size_t n) {
    if (from == 1 && to == 1)
      std::memcpy(target, source, n * sizeof(T));
    else
      for (std::size_t i = 0; i < n; ++i) target[i * to] = source[i * from];
  }

  // From u8 to u8 in another range.
  void requantise(const Call& call, const Value& in, const std::uint8_t* source, std::size_t from, std::uint8_t* target,
                  std::size_t to, std::size_t n, std::uint8_t* buffer) const {
    std::uint8_t* const codes = buffer;
    auto* const floats = reinterpret_cast<float*>(buffer + kChunk + kAlignment);
    for (; n > 0;) {
      const std::size_t count = std::min(n, kChunk);
      move(source, from, codes, 1, count);
      call.kernels.dequantise(codes, count, in.range, floats);
      call.kernels.quantise(floats, count, out_.range, codes);
      move(codes, 1, target, to, count);
      source += count * from, target += count * to, n -= count;
    }
  }

  std::vector<StridedCopy> copies_;
  std::vector<Value> inputs_;
  Value out_;
  bool fills_ = false;
  float fill_ = 0;
};

// Reshapes one image into another, by the longest runs that lie within one line of both.
class ImageReshapeStep : public MoveStep {
 public:
  ImageReshapeStep(const Value& in, const Value& out)
      : MoveStep({}, {in}, out),
        from_(strides(in.shape)),
        to_(strides(out.shape)),
        run_{0, 0, 0, {std::gcd(std::size_t(in.shape[2]), std::size_t(out.shape[2]))}, {from_[2]}, {to_[2]}} {}

  void run(const Call& call) const override {
    const Value& in = inputs_[0];
    const std::size_t elements = in.elements();
    call.pool.run(call.batch, [&](std::size_t image, std::size_t thread) {
      for (std::size_t first = 0; first < elements; first += run_.sizes[0])
        walk(call, in, run_, 0, run_.sizes[0], image * elements + place(in.shape, from_, first),
             image * elements + place(out_.shape, to_, first), call.thread_scratch(thread));
    });
  }

 private:
  static std::size_t place(const Shape& shape, const std::vector<std::size_t>& stride, std::size_t element) {
    const std::size_t plane = std::size_t(shape[1]) * shape[2];
    return element / plane * stride[0] + element % plane / shape[2] * stride[1] + element % shape[2] * stride[2];
  }

  std::vector<std::size_t> from_, to_;
  StridedCopy run_;
};

}  // namespace

std::unique_ptr<Step> make_move(const Node& node, const std::vector<Value>& inputs, const Value& out) {
  switch (node.op) {
    case Op::concat:
      return std::make_unique<MoveStep>(concat_copies(inputs, out), inputs, out);
    case Op::reshape:
      if (inputs[0].image() && out.image() && inputs[0].shape != out.shape)
        return std::make_unique<ImageReshapeStep>(inputs[0], out);
      return std::make_unique<MoveStep>(std::vector{reshape_copy(inputs[0], out)}, inputs, out);
    case Op::slice:
      return std::make_unique<MoveStep>(std::vector{slice_copy(node, inputs[0], out)}, inputs, out);
    case Op::permute:
      return std::make_unique<MoveStep>(std::vector{permute_copy(node, inputs[0], out)}, inputs, out);
    default: {
      auto step = std::make_unique<MoveStep>(std::vector{pad_copy(node, inputs[0], out)}, inputs, out);
      step->fill(node.pad_value);
      return step;
    }
  }
}

}  // namespace bitplan
