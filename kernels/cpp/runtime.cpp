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
  return {format == Format::f32 ? node.offset_f32 : node.offset_u8, format, node.range, node.shape};
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

void Runtime::add_node(const Artifact& artifact, std::size_t number) {
  const Node& node = artifact.nodes[number];
  std::vector<Value> inputs;
  for (const std::uint16_t input : node.inputs) inputs.push_back(value_of(artifact.nodes[input], node.read));
  const Value out = value_of(node, node.written());
  std::unique_ptr<Step> step;
  switch (node.op) {
    case Op::input:
      step = make_input(preprocessing_, inputs_.size(), out, kernels_);
      inputs_.push_back({node.name, node.shape});
      break;
    case Op::conv2d:
      step = (node.weight.shape.depthwise() ? make_depthwise : make_conv2d)(node, inputs, out, kernels_, weight_bytes_);
      break;
    case Op::linear:
      step = make_linear(node, inputs, out, kernels_, weight_bytes_);
      break;
    case Op::scale_shift:
    case Op::activate:
    case Op::add:
    case Op::mul:
      step = make_pointwise(node, inputs, out);
      break;
    case Op::softmax:
      step = make_softmax(inputs, out);
      break;
    case Op::max_pool:
    case Op::average_pool:
      step = make_pool(node, inputs, out);
      break;
    case Op::mean:
      step = make_mean(inputs, out);
      break;
    case Op::concat:
    case Op::pad:
    case Op::slice:
    case Op::reshape:
    case Op::permute:
      step = make_move(node, inputs, out);
      break;
  }
  steps_.push_back(std::move(step));
  step_names_.push_back(node.name);
  if (node.kept == (kKeepsF32 | kKeepsU8)) {
    steps_.push_back(make_quantise(out, value_of(node, Format::u8)));
    step_names_.push_back(node.name + ":u8");
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
