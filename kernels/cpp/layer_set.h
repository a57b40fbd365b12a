// The layers of an artifact, called one by one from outside, each on images of any size: what drop-in modules run.
// The artifact's layers must each read an input of their own. run() may be called from several threads at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "artifact.h"
#include "step.h"

namespace bitplan {

class LayerSet {
 public:
  // `isa` empty: the active level. Throws FormatError, OptionError, std::bad_alloc.
  LayerSet(std::vector<std::uint8_t> file, std::size_t threads, const std::string& isa);
  ~LayerSet();

  std::size_t size() const { return entries_.size(); }
  const Node& layer(std::size_t number) const;
  const Shape& planned_input(std::size_t number) const;
  const std::vector<std::uint8_t>& file() const { return file_; }
  const char* isa() const { return kernels_.isa; }
  std::size_t threads() const { return threads_; }
  void set_threads(std::size_t threads);
  // Of all shapes that are prepared: weights as they stay in memory.
  std::size_t weight_bytes() const;

  // The shape of a layer's value for an input of `shape` (without the batch). Throws InputError where the layer cannot
  // read that.
  Shape output_shape(std::size_t number, const Shape& shape) const;

  // What one call needs. acquire and release take a lock: a caller that can be forked (Python, under its global lock)
  // must not fork within either. The first call with a shape prepares the layer for it; a layer is kept prepared for
  // the kShapes shapes that were used last.
  struct Part;
  struct Context;
  struct Lease {
    std::shared_ptr<const Part> part;
    std::shared_ptr<Context> context;
  };
  Lease acquire(std::size_t number, const Shape& shape);
  void release(Lease lease);

  // `in` [batch][shape] f32, channels first or (interleaved) last; `out` f32, channels last.
  void run(const Lease& lease, std::size_t batch, const float* in, bool interleaved, float* out) const;

  static constexpr std::size_t kShapes = 8;

 private:
  struct Entry {
    std::size_t input, node;                         // numbers in the artifact
    std::vector<std::shared_ptr<const Part>> parts;  // the one used last comes last
  };

  const KernelTable& kernels_;
  std::vector<std::uint8_t> file_;
  Artifact artifact_;
  std::vector<Entry> entries_;
  std::size_t threads_ = 1;
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<Context>> free_contexts_;
};

}  // namespace bitplan
