#include "runtime.h"

#include <unistd.h>

#include <chrono>
#include <cstring>

#include "error.h"

namespace bitplan {
namespace {

constexpr std::size_t kMaxThreads = 256;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

Value value_of(const Node& node, Format format) {
  return {place_of(node, format), format, node.range(format), node.shape};
}

// [H][W][C] of one image becomes [C][H][W]; other shapes are copied.
void write_output(const Value& value, const float* stored, float* out) {
  if (!value.image()) {
    std::memcpy(out, stored, 4 * value.elements());
    return;
  }
  const std::size_t channels = value.channels(), pixels = value.rows();
  for (std::size_t c = 0; c < channels; ++c)
    for (std::size_t p = 0; p < pixels; ++p) out[c * pixels + p] = stored[p * channels + c];
}

}  // namespace

struct Runtime::Context {
  Context(const Scratch& need, std::size_t threads)
      : pool(std::make_unique<ThreadPool>(threads)),
        per_thread(round_up(need.per_thread, kAlignment) + kAlignment),
        shared(need.shared),
        scratch(per_thread * threads) {}

  ~Context() {
    if (inherited()) static_cast<void>(pool.release());
  }

  // The threads of a pool do not follow into a forked child, nor can they be joined there: the pool is left behind.
  bool inherited() const { return getpid() != process; }

  std::unique_ptr<ThreadPool> pool;
  pid_t process = getpid();
  std::size_t per_thread;
  AlignedBuffer arena, shared, scratch;
};

const KernelTable& kernels_of(const std::string& isa) {
  if (isa.empty()) {
    try {
      return active_kernels();
    } catch (const std::runtime_error& error) {
      throw OptionError(error.what());
    }
  }
  std::string names;
  for (std::size_t i = 0; i < kLevelCount; ++i) {
    const KernelTable& level = *kLevels[i];
    if (isa == level.isa) {
      if (!level.supported()) throw OptionError(text("this machine cannot run the ISA level '", isa, "'"));
      return level;
    }
    names += text(names.empty() ? "" : ", ", level.isa);
  }
  throw OptionError(text("unknown ISA level '", isa, "'; known are ", names));
}

Runtime::Runtime(Bytes file, std::size_t threads, const std::string& isa) : kernels_(kernels_of(isa)) {
  set_threads(threads);
  const Artifact artifact = read_artifact(file);
  preprocessing_ = artifact.preprocessing;
  policy_hash_ = artifact.policy_hash;
  planned_batch_ = artifact.planned_batch;
  arena_bytes_ = artifact.arena_bytes;
  for (std::size_t number = 0; number < artifact.nodes.size(); ++number) {
    try {
      add_node(artifact, number);
    } catch (const FormatError& error) {
      throw FormatError(text(describe(artifact, number), ": ", error.what()));
    }
  }
  for (const std::uint16_t output : artifact.outputs) {
    const Node& node = artifact.nodes[output];
    outputs_.push_back({node.name, node.shape});
    output_values_.push_back(value_of(node, Format::f32));
  }
  for (const auto& step : steps_) {
    const Scratch need = step->scratch(planned_batch_);
    scratch_.shared = std::max(scratch_.shared, need.shared);
    scratch_.per_thread = std::max(scratch_.per_thread, need.per_thread);
  }
}

Runtime::~Runtime() = default;

void Runtime::set_threads(std::size_t threads) {
  if (threads < 1 || threads > kMaxThreads)
    throw OptionError(text("threads is ", threads, "; it must be from 1 to ", kMaxThreads));
  const std::lock_guard lock(mutex_);
  threads_ = threads;
  free_contexts_.clear();
}

void Runtime::add_step(std::unique_ptr<Step> step, std::string name, std::string kernel) {
  steps_.push_back(std::move(step));
  step_names_.push_back(std::move(name));
  step_kernels_.push_back(std::move(kernel));
}

// A layer writes all formats of its value; any other node writes the first, f32 or u8, and the rest is converted.
void Runtime::add_node(const Artifact& artifact, std::size_t number) {
  const Node& node = artifact.nodes[number];
  std::vector<Value> inputs;
  for (std::size_t i = 0; i < node.inputs.size(); ++i)
    inputs.push_back(value_of(artifact.nodes[node.inputs[i]], node.read_format(i)));
  Outputs outputs;
  for (const Format format : kFormats)
    if (node.keeps(format)) outputs.push_back(value_of(node, format));
  if (node.layer()) {
    const auto make = node.op == Op::linear           ? make_linear
                      : node.weight.shape.depthwise() ? make_depthwise
                                                      : make_conv2d;
    add_step(make(node, inputs, outputs, kernels_, weight_bytes_), node.name,
             kKernelNames[unsigned(node.weight.kernel)]);
    return;
  }
  add_step(make_operation(node, inputs, outputs.front()), node.name);
  for (auto out = outputs.begin() + 1; out != outputs.end(); ++out)
    add_step(make_conversion(outputs.front(), *out), text(node.name, ":", name_of(out->format)));
}

std::unique_ptr<Step> Runtime::make_operation(const Node& node, const std::vector<Value>& inputs, const Value& out) {
  switch (node.op) {
    case Op::input:
      inputs_.push_back({node.name, node.shape});
      return make_input(preprocessing_, inputs_.size() - 1, out, kernels_);
    case Op::softmax:
      return make_softmax(inputs, out);
    case Op::max_pool:
    case Op::average_pool:
      return make_pool(node, inputs, out);
    case Op::mean:
      return make_mean(inputs, out);
    case Op::concat:
    case Op::pad:
    case Op::slice:
    case Op::reshape:
    case Op::permute:
      return make_move(node, inputs, out);
    default:
      return make_pointwise(node, inputs, out);
  }
}

Runtime::Lease Runtime::acquire(std::size_t batch) {
  if (batch < 1 || batch > planned_batch_)
    throw InputError(text("a batch of ", batch, " images; this artifact was planned for 1 to ", planned_batch_));
  std::unique_ptr<Context> context;
  std::size_t threads;
  {
    const std::lock_guard lock(mutex_);
    threads = threads_;
    if (!free_contexts_.empty() && free_contexts_.back()->inherited()) free_contexts_.clear();
    if (!free_contexts_.empty()) {
      context = std::move(free_contexts_.back());
      free_contexts_.pop_back();
    }
  }
  if (!context) context = std::make_unique<Context>(scratch_, threads);
  if (const std::size_t bytes = arena_bytes_ * batch; context->arena.bytes() < bytes || !context->arena.data())
    context->arena = AlignedBuffer(bytes);
  return {context.release(), Release{this}};
}

void Runtime::release(Context* context) {
  std::unique_ptr<Context> owned(context);
  const std::lock_guard lock(mutex_);
  if (owned->pool->threads() == threads_) free_contexts_.push_back(std::move(owned));
}

Call Runtime::call_for(Context& context, const std::vector<RawArray>& inputs, std::size_t batch) const {
  return {kernels_,           *context.pool, context.arena.data(), batch, context.shared.data(), context.scratch.data(),
          context.per_thread, inputs.data()};
}

void Runtime::write_outputs(const Call& call, const std::vector<float*>& outputs) const {
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const Value& value = output_values_[i];
    for (std::size_t image = 0; image < call.batch; ++image)
      write_output(value, call.at<float>(value) + image * value.elements(), outputs[i] + image * value.elements());
  }
}

void Runtime::run(Context& context, const std::vector<RawArray>& inputs, std::size_t batch,
                  const std::vector<float*>& outputs) {
  const Call call = call_for(context, inputs, batch);
  for (const auto& step : steps_) step->run(call);
  write_outputs(call, outputs);
}

void Runtime::time_steps(Context& context, const std::vector<RawArray>& inputs, std::size_t batch, std::size_t runs,
                         double* seconds) {
  const Call call = call_for(context, inputs, batch);
  for (std::size_t i = 0; i < runs; ++i) {
    double before = now();
    for (const auto& step : steps_) {
      step->run(call);
      const double after = now();
      *seconds++ = after - before;
      before = after;
    }
  }
}

void Runtime::time_runs(Context& context, const std::vector<RawArray>& inputs, std::size_t batch, std::size_t runs,
                        const std::vector<float*>& outputs, double* seconds) {
  for (std::size_t i = 0; i < runs; ++i) {
    const double before = now();
    run(context, inputs, batch, outputs);
    seconds[i] = now() - before;
  }
}

}  // namespace bitplan
