#include "layer_set.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "error.h"
#include "runtime.h"

namespace bitplan {
namespace {

constexpr std::uint64_t kMaxElements = std::uint64_t(1) << 31;  // of a value of one image

Value value_of(const Node& node, Format format) {
  return {place_of(node, format), format, node.range(format), node.shape};
}

// What is not converted is copied: in pieces of this many elements for each thread.
constexpr std::size_t kPiece = std::size_t(1) << 15;

// From the caller's array to the input's first format, f32 or u8.
class Entrance {
 public:
  explicit Entrance(const Value& value) : value_(value) {}

  std::size_t scratch() const { return (line_elements() + kAlignment) * sizeof(float); }

  void run(const Call& call, const float* in, bool interleaved) const {
    if (interleaved || !value_.image())
      take_as_it_lies(call, in);
    else
      take_planes(call, in);
  }

 private:
  std::size_t line_elements() const { return value_.image() ? value_.elements() / value_.shape[1] : 0; }

  void store(const Call& call, const float* values, std::size_t first, std::size_t count) const {
    if (value_.format == Format::u8)
      call.kernels.quantise(values, count, value_.range, call.at<std::uint8_t>(value_) + first);
    else
      std::memcpy(call.at<float>(value_) + first, values, count * sizeof(float));
  }

  void take_as_it_lies(const Call& call, const float* in) const {
    const std::size_t total = call.batch * value_.elements();
    call.pool.run(divide_up(total, kPiece), [&](std::size_t task, std::size_t) {
      const std::size_t first = task * kPiece;
      store(call, in + first, first, std::min(kPiece, total - first));
    });
  }

  // A line of an image is the unit of work.
  void take_planes(const Call& call, const float* in) const {
    const std::size_t channels = value_.channels(), lines = value_.shape[1], width = value_.shape[2];
    call.pool.run(call.batch * lines, [&](std::size_t task, std::size_t thread) {
      const std::size_t image = task / lines, line = task % lines, target = task * line_elements();
      const float* const source = in + image * value_.elements() + line * width;
      float* const made = value_.format == Format::f32 ? call.at<float>(value_) + target
                                                       : reinterpret_cast<float*>(call.thread_scratch(thread));
      for (std::size_t c = 0; c < channels; ++c)
        for (std::size_t x = 0; x < width; ++x) made[x * channels + c] = source[c * lines * width + x];
      if (value_.format != Format::f32) store(call, made, target, line_elements());
    });
  }

  Value value_;
};

std::uint32_t window_positions(const Window& window, std::size_t axis, std::uint32_t size) {
  const std::uint64_t padded = std::uint64_t(size) + window.padding[2 * axis] + window.padding[2 * axis + 1];
  const std::uint64_t extent = std::uint64_t(window.dilation[axis]) * (window.kernel[axis] - 1) + 1;
  return padded < extent ? 0 : std::uint32_t((padded - extent) / window.stride[axis] + 1);
}

}  // namespace

// A layer prepared for one shape of its input: the steps from the caller's array to the layer's value.
struct LayerSet::Part {
  Part(const Artifact& artifact, const Entry& entry, const Shape& shape, const Shape& made, const KernelTable& kernels)
      : shape(shape) {
    Node input = artifact.nodes[entry.input], node = artifact.nodes[entry.node];
    input.shape = shape, input.offset = 0;
    node.shape = made, node.offset = 0;
    const std::uint64_t end = place_of(input, Format::none);
    out = value_of(node, Format::f32);
    out.offset += end;
    arena_bytes = end + round_up(4 * out.elements(), kAlignment);
    std::vector<Value> kept;
    for (const Format format : kFormats)
      if (input.keeps(format)) kept.push_back(value_of(input, format));
    entrance = std::make_unique<Entrance>(kept.front());
    for (auto value = kept.begin() + 1; value != kept.end(); ++value)
      steps.push_back(make_conversion(kept.front(), *value));
    const auto make = node.op == Op::linear           ? make_linear
                      : node.weight.shape.depthwise() ? make_depthwise
                                                      : make_conv2d;
    steps.push_back(make(node, {value_of(input, node.read)}, {out}, kernels, weight_bytes));
  }

  Scratch scratch(std::size_t batch) const {
    Scratch most{0, entrance->scratch()};
    for (const auto& step : steps) {
      const Scratch need = step->scratch(batch);
      most.shared = std::max(most.shared, need.shared);
      most.per_thread = std::max(most.per_thread, need.per_thread);
    }
    return most;
  }

  Shape shape;
  Value out;
  std::size_t arena_bytes = 0, weight_bytes = 0;
  std::unique_ptr<Entrance> entrance;
  std::vector<std::unique_ptr<Step>> steps;
};

// What one call needs. It grows with the calls that it serves.
struct LayerSet::Context {
  explicit Context(std::size_t threads) : pool(std::make_unique<ThreadPool>(threads)) {}

  ~Context() {
    if (inherited()) static_cast<void>(pool.release());
  }

  // The threads of a pool do not follow into a forked child, nor can they be joined there: the pool is left behind.
  bool inherited() const { return getpid() != process; }

  Call call_for(const KernelTable& kernels, const Part& part, std::size_t batch) {
    const Scratch need = part.scratch(batch);
    const std::size_t per_thread = round_up(need.per_thread, kAlignment) + kAlignment;
    grow(arena, part.arena_bytes * batch);
    grow(shared, need.shared);
    grow(scratch, per_thread * pool->threads());
    return {kernels, *pool, arena.data(), batch, shared.data(), scratch.data(), per_thread, nullptr};
  }

  static void grow(AlignedBuffer& buffer, std::size_t bytes) {
    if (buffer.bytes() >= bytes && buffer.data()) return;
    buffer = AlignedBuffer();
    buffer = AlignedBuffer(bytes);
  }

  std::unique_ptr<ThreadPool> pool;
  pid_t process = getpid();
  AlignedBuffer arena, shared, scratch;
};

LayerSet::LayerSet(std::vector<std::uint8_t> file, std::size_t threads, const std::string& isa)
    : kernels_(kernels_of(isa)), file_(std::move(file)), artifact_(read_artifact(file_)) {
  set_threads(threads);
  for (std::size_t number = 0; number < artifact_.nodes.size(); ++number) {
    const Node& node = artifact_.nodes[number];
    if (node.op == Op::input) continue;
    if (!node.layer() || node.inputs.size() != 1 || artifact_.nodes[node.inputs[0]].op != Op::input ||
        !node.keeps(Format::f32))
      throw FormatError(text(describe(artifact_, number),
                             " is not a layer with an input of its own; this is a network, not a set of layers"));
    entries_.push_back({node.inputs[0], number, {}});
  }
}

LayerSet::~LayerSet() = default;

const Node& LayerSet::layer(std::size_t number) const { return artifact_.nodes[entries_.at(number).node]; }

const Shape& LayerSet::planned_input(std::size_t number) const {
  return artifact_.nodes[entries_.at(number).input].shape;
}

void LayerSet::set_threads(std::size_t threads) {
  constexpr std::size_t kMaxThreads = 256;
  if (threads < 1 || threads > kMaxThreads)
    throw OptionError(text("threads is ", threads, "; it must be from 1 to ", kMaxThreads));
  const std::lock_guard lock(mutex_);
  threads_ = threads;
  free_contexts_.clear();
}

std::size_t LayerSet::weight_bytes() const {
  const std::lock_guard lock(mutex_);
  std::size_t bytes = 0;
  for (const Entry& entry : entries_)
    for (const auto& part : entry.parts) bytes += part->weight_bytes;
  return bytes;
}

Shape LayerSet::output_shape(std::size_t number, const Shape& shape) const {
  const Node& node = layer(number);
  const LayerShape& weight = node.weight.shape;
  const bool image = node.op == Op::conv2d;
  const bool fits = image ? shape.size() == 3 && shape[0] == weight.in
                          : (shape.size() == 1 || shape.size() == 2) && shape.back() == weight.in;
  if (!fits)
    throw InputError(text("layer '", node.name, "' cannot read a value of shape ", to_string(shape), "; it reads ",
                          image ? text("images of ", weight.in, " channels") : text(weight.in, " features")));
  Shape made = shape;
  if (image)
    made = {std::uint32_t(weight.out), window_positions(node.window, 0, shape[1]),
            window_positions(node.window, 1, shape[2])};
  else
    made.back() = std::uint32_t(weight.out);
  const auto usable = [](const Shape& sizes) {
    std::uint64_t count = 1;
    for (const std::uint32_t size : sizes) {
      count *= size;
      if (count == 0 || count > kMaxElements) return false;
    }
    return true;
  };
  if (!usable(shape) || !usable(made))
    throw InputError(text("layer '", node.name, "' cannot read a value of shape ", to_string(shape),
                          ": it is too small for the kernel, or too large"));
  return made;
}

LayerSet::Lease LayerSet::acquire(std::size_t number, const Shape& shape) {
  const Shape made = output_shape(number, shape);
  Lease lease;
  const std::lock_guard lock(mutex_);
  auto& parts = entries_[number].parts;
  const auto found = std::find_if(parts.begin(), parts.end(), [&](const auto& part) { return part->shape == shape; });
  if (found != parts.end()) {
    std::rotate(found, found + 1, parts.end());
  } else {
    try {
      parts.push_back(std::make_shared<const Part>(artifact_, entries_[number], shape, made, kernels_));
    } catch (const FormatError& error) {
      throw FormatError(text(describe(artifact_, entries_[number].node), ": ", error.what()));
    }
    if (parts.size() > kShapes) parts.erase(parts.begin());
  }
  lease.part = parts.back();
  if (!free_contexts_.empty() && free_contexts_.back()->inherited()) free_contexts_.clear();
  if (free_contexts_.empty()) {
    lease.context = std::make_shared<Context>(threads_);
  } else {
    lease.context = std::move(free_contexts_.back());
    free_contexts_.pop_back();
  }
  return lease;
}

void LayerSet::release(Lease lease) {
  const std::lock_guard lock(mutex_);
  if (lease.context->pool->threads() == threads_) free_contexts_.push_back(std::move(lease.context));
}

void LayerSet::run(const Lease& lease, std::size_t batch, const float* in, bool interleaved, float* out) const {
  if (batch < 1) throw InputError("an empty batch was given; expected one image at least");
  const Part& part = *lease.part;
  const Call call = lease.context->call_for(kernels_, part, batch);
  part.entrance->run(call, in, interleaved);
  for (const auto& step : part.steps) step->run(call);
  const std::size_t total = batch * part.out.elements();
  call.pool.run(divide_up(total, kPiece), [&](std::size_t task, std::size_t) {
    const std::size_t first = task * kPiece;
    std::memcpy(out + first, call.at<float>(part.out) + first, std::min(kPiece, total - first) * sizeof(float));
  });
}

}  // namespace bitplan
