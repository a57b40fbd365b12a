// One step of the executor, and what it finds when it runs.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "aligned_buffer.h"
#include "artifact.h"
#include "kernel_table.h"
#include "thread_pool.h"

namespace bitplan {

// A value in one format. Images lie as [H][W][C]; planes of bits as [rows][bits][words] words of 32 bits.
struct Value {
  std::size_t offset = 0;  // in the arena, for one image
  Format format = Format::f32;
  Range range;
  Shape shape;

  std::size_t elements() const { return element_count(shape); }
  bool image() const { return shape.size() == 3; }
  std::size_t channels() const { return channel_count(shape); }
  // Runs of `channels` elements in one image, the bytes of one, and of planes the words of one plane of it.
  std::size_t rows() const { return elements() / channels(); }
  std::size_t row_bytes() const { return run_bytes(channels(), format); }
  std::size_t words() const { return words_of(channels()); }
};

// The formats in which a layer writes its value, in the order of kFormats.
using Outputs = std::vector<Value>;

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

// The makers of steps, one file each. `inputs` are in the format that the node reads.
std::unique_ptr<Step> make_input(const Preprocessing& preprocessing, std::size_t input_number, const Value& out,
                                 const KernelTable& kernels);
std::unique_ptr<Step> make_conv2d(const Node& node, const std::vector<Value>& inputs, const Outputs& outputs,
                                  const KernelTable& kernels, std::size_t& resident_bytes);
std::unique_ptr<Step> make_depthwise(const Node& node, const std::vector<Value>& inputs, const Outputs& outputs,
                                     const KernelTable& kernels, std::size_t& resident_bytes);
std::unique_ptr<Step> make_linear(const Node& node, const std::vector<Value>& inputs, const Outputs& outputs,
                                  const KernelTable& kernels, std::size_t& resident_bytes);
std::unique_ptr<Step> make_pointwise(const Node& node, const std::vector<Value>& inputs, const Value& out);
std::unique_ptr<Step> make_softmax(const std::vector<Value>& inputs, const Value& out);
std::unique_ptr<Step> make_pool(const Node& node, const std::vector<Value>& inputs, const Value& out);
std::unique_ptr<Step> make_mean(const std::vector<Value>& inputs, const Value& out);
std::unique_ptr<Step> make_move(const Node& node, const std::vector<Value>& inputs, const Value& out);
// From f32 to codes: u8, or planes of bits.
std::unique_ptr<Step> make_conversion(const Value& in, const Value& out);

}  // namespace bitplan
