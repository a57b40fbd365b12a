// A loaded artifact, ready to run. run() may be called from several threads at once.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "artifact.h"
#include "step.h"

namespace bitplan {

// Raise by hand whenever the speed of anything changes: device profiles are valid for one kernel version.
constexpr const char* kKernelVersion = "2";

// A named array that crosses the interface; the shape is channels first and without the batch.
struct Port {
  std::string name;
  Shape shape;
};

class Runtime {
 public:
  // `isa` empty: the active level. Throws FormatError, OptionError, std::bad_alloc.
  Runtime(Bytes file, std::size_t threads, const std::string& isa);
  ~Runtime();

  const std::vector<Port>& inputs() const { return inputs_; }
  const std::vector<Port>& outputs() const { return outputs_; }
  const std::vector<std::string>& steps() const { return step_names_; }
  // By step: how its products are formed ("bytes"), or nothing.
  const std::vector<std::string>& step_kernels() const { return step_kernels_; }
  const Preprocessing& preprocessing() const { return preprocessing_; }
  const std::array<std::uint8_t, 32>& policy_hash() const { return policy_hash_; }
  std::size_t planned_batch() const { return planned_batch_; }
  std::size_t weight_bytes() const { return weight_bytes_; }  // of all layers, as they stay in memory
  std::size_t arena_bytes() const { return arena_bytes_; }    // of one image
  const char* isa() const { return kernels_.isa; }
  std::size_t threads() const { return threads_; }
  void set_threads(std::size_t threads);

  // What one call needs; made by acquire, given back by release. Both are quick: a caller that can be forked
  // (Python, under its global lock) must not fork between the two halves of either.
  struct Context;
  struct Release {
    Runtime* runtime;
    void operator()(Context* context) const { runtime->release(context); }
  };
  using Lease = std::unique_ptr<Context, Release>;
  // Throws InputError for a batch that is empty or larger than planned.
  Lease acquire(std::size_t batch);

  // `inputs` and `outputs` in the order of the ports; outputs are f32, channels first.
  void run(Context& context, const std::vector<RawArray>& inputs, std::size_t batch,
           const std::vector<float*>& outputs);
  // Seconds of each step: `seconds` [runs][steps].
  void time_steps(Context& context, const std::vector<RawArray>& inputs, std::size_t batch, std::size_t runs,
                  double* seconds);
  // Seconds of whole inferences, outputs included: `seconds` [runs].
  void time_runs(Context& context, const std::vector<RawArray>& inputs, std::size_t batch, std::size_t runs,
                 const std::vector<float*>& outputs, double* seconds);

 private:
  void add_node(const Artifact& artifact, std::size_t number);
  std::unique_ptr<Step> make_operation(const Node& node, const std::vector<Value>& inputs, const Value& out);
  void add_step(std::unique_ptr<Step> step, std::string name, std::string kernel = {});
  void release(Context* context);
  Call call_for(Context& context, const std::vector<RawArray>& inputs, std::size_t batch) const;
  void write_outputs(const Call& call, const std::vector<float*>& outputs) const;

  const KernelTable& kernels_;
  std::vector<Port> inputs_, outputs_;
  std::vector<Value> output_values_;
  std::vector<std::unique_ptr<Step>> steps_;
  std::vector<std::string> step_names_, step_kernels_;
  Preprocessing preprocessing_;
  std::array<std::uint8_t, 32> policy_hash_{};
  std::size_t planned_batch_ = 1, weight_bytes_ = 0, arena_bytes_ = 0, threads_ = 1;
  Scratch scratch_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Context>> free_contexts_;
};

// The level of that name. Throws OptionError where it is unknown or this machine lacks it.
const KernelTable& kernels_of(const std::string& isa);

}  // namespace bitplan
