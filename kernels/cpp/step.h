// One step of the executor, and what it finds when it runs.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "aligned_buffer.h"
#include "artifact.h"
#include "kernel_table.h"
#include "thread_pool.h"

namespace bitplan {

// A value in one format. Images lie as [H][W][C].
struct Value {
  std::size_t offset = 0;  // in the arena, for one image
  Format format = Format::f32;
  Range range;
  Shape shape;

  std::size_t elements() const { return element_count(shape); }
  bool image() const { return shape.size() == 3; }
  std::size_t channels() const { return shape.size() == 3 ? shape[0] : shape.back(); }
  // Runs of `channels` elements in one image.
  std::size_t rows() const { return elements() / channels(); }
};

// An array of the caller: [batch][shape], channels first.
struct RawArray {
  const void* data = nullptr;
  Format format = Format::f32;
};

// Scratch memory that a step needs: once for all threads, and once for each.
struct Scratch {
  std::size_t shared = 0, per_thread = 0;
};

struct Call {
  const KernelTable& kernels;
  ThreadPool& pool;
  std::uint8_t* arena;
  std::size_t batch;
  std::uint8_t* shared;
  std::uint8_t* threads;
  std::size_t per_thread;
  const RawArray* inputs;

  template <typename T>
  T* at(const Value& value) const {
    return reinterpret_cast<T*>(arena + value.offset * batch);
  }
  std::uint8_t* thread_scratch(std::size_t thread) const { return threads + thread * per_thread; }
};

class Step {
 public:
  virtual ~Step() = default;
  virtual Scratch scratch(std::size_t /*batch*/) const { return {}; }
  virtual void run(const Call& call) const = 0;
};

// Hands out consecutive aligned pieces of a scratch area.
class Carver {
 public:
  explicit Carver(std::uint8_t* at = nullptr) : at_(at) {}

  template <typename T>
  T* take(std::size_t count) {
    T* const piece = reinterpret_cast<T*>(at_ + used_);
    used_ += round_up(count * sizeof(T), kAlignment) + kAlignment;
    return piece;
  }
  std::size_t used() const { return used_; }

 private:
  std::uint8_t* at_;
  std::size_t used_ = 0;
};

constexpr std::size_t kChunk = 4096;  // elements that pass through f32 scratch at a time

inline std::size_t divide_up(std::size_t n, std::size_t by) { return (n + by - 1) / by; }

inline bool same_range(const Range& a, const Range& b) { return a.scale == b.scale && a.zero_point == b.zero_point; }

// Copies or converts a run of n <= kChunk elements; `buffer` holds kChunk floats.
inline void convert_run(const KernelTable& kernels, const Value& from, const void* source, const Value& to,
                        void* target, std::size_t n, float* buffer) {
  if (from.format == Format::f32) {
    if (to.format == Format::f32)
      std::copy_n(static_cast<const float*>(source), n, static_cast<float*>(target));
    else
      kernels.quantise(static_cast<const float*>(source), n, to.range, static_cast<std::uint8_t*>(target));
    return;
  }
  const auto* codes = static_cast<const std::uint8_t*>(source);
  if (to.format == Format::f32) {
    kernels.dequantise(codes, n, from.range, static_cast<float*>(target));
  } else if (same_range(from.range, to.range)) {
    std::copy_n(codes, n, static_cast<std::uint8_t*>(target));
  } else {
    kernels.dequantise(codes, n, from.range, buffer);
    kernels.quantise(buffer, n, to.range, static_cast<std::uint8_t*>(target));
  }
}

// The makers of steps, one file each. `inputs` are in the format that the node reads.
std::unique_ptr<Step> make_input(const Preprocessing& preprocessing, std::size_t input_number, const Value& out,
                                 const KernelTable& kernels);
std::unique_ptr<Step> make_conv2d(const Node& node, const std::vector<Value>& inputs, const Value& out,
                                  const KernelTable& kernels, std::size_t& resident_bytes);
std::unique_ptr<Step> make_depthwise(const Node& node, const std::vector<Value>& inputs, const Value& out,
                                     const KernelTable& kernels, std::size_t& resident_bytes);
std::unique_ptr<Step> make_linear(const Node& node, const std::vector<Value>& inputs, const Value& out,
                                  const KernelTable& kernels, std::size_t& resident_bytes);
std::unique_ptr<Step> make_pointwise(const Node& node, const std::vector<Value>& inputs, const Value& out);
std::unique_ptr<Step> make_softmax(const std::vector<Value>& inputs, const Value& out);
std::unique_ptr<Step> make_pool(const Node& node, const std::vector<Value>& inputs, const Value& out);
std::unique_ptr<Step> make_mean(const std::vector<Value>& inputs, const Value& out);
std::unique_ptr<Step> make_move(const Node& node, const std::vector<Value>& inputs, const Value& out);
std::unique_ptr<Step> make_quantise(const Value& in, const Value& out);

}  // namespace bitplan
