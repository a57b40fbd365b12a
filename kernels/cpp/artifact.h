// An artifact as it is in the file (kernels/FORMAT.md), every number checked.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernel_table.h"

namespace bitplan {

using Shape = std::vector<std::uint32_t>;  // without the batch; rank 3 is (channels, height, width)
using Bytes = std::span<const std::uint8_t>;

enum class Op : std::uint8_t {
  input,
  conv2d,
  linear,
  scale_shift,
  activate,
  add,
  mul,
  concat,
  max_pool,
  average_pool,
  mean,
  pad,
  slice,
  reshape,
  permute,
  softmax,
};
constexpr std::array<const char*, 16> kOpNames = {"input", "conv2d",  "linear",   "scale shift",  "activate", "add",
                                                  "mul",   "concat",  "max pool", "average pool", "mean",     "pad",
                                                  "slice", "reshape", "permute",  "softmax"};

constexpr std::uint8_t kKeepsF32 = 1, kKeepsU8 = 2;
constexpr std::uint32_t kAbsent = 0xFFFFFFFFu;

// A sliding window: height and width; paddings top, bottom, left, right.
struct Window {
  std::array<std::uint32_t, 2> kernel{1, 1}, stride{1, 1}, dilation{1, 1};
  std::array<std::uint32_t, 4> padding{0, 0, 0, 0};
};

struct SliceRange {
  std::uint32_t start, stop, step;
};

// The weight tensor [out, in / groups, height, width]; linear layers have a kernel of 1 x 1.
struct LayerShape {
  std::size_t out = 1, in = 1, height = 1, width = 1, groups = 1;

  bool depthwise() const { return groups > 1 && groups == in && in == out; }
  std::size_t reduction() const { return in / groups * height * width; }
  std::size_t count() const { return out * reduction(); }
  std::size_t group_outputs() const { return out / groups; }
};

struct Weight {
  Codec codec = Codec::float32;
  std::uint32_t kept = 0;
  std::uint64_t offset = 0, size = 0;
  LayerShape shape;
  Bytes data;
};

struct Node {
  Op op = Op::input;
  Activation activation;
  std::uint8_t kept = 0;  // kKeepsF32 | kKeepsU8
  Format read = Format::none;
  Range range;
  std::uint32_t offset_f32 = kAbsent, offset_u8 = kAbsent;
  Shape shape;
  std::vector<std::uint16_t> inputs;
  std::string name;

  Window window;                                // conv2d, pools; pad uses its padding
  std::uint32_t groups = 1;                     // conv2d
  Weight weight;                                // conv2d, linear
  std::uint64_t constants_offset = 0;           // scale shift
  Bytes constants;                              // scale shift: scales, then shifts
  bool count_padding = false;                   // average pool
  bool keep = false;                            // mean
  std::array<std::uint32_t, 2> pad_channels{};  // pad: before, after
  float pad_value = 0;                          // pad
  std::vector<SliceRange> ranges;               // slice
  std::vector<std::uint8_t> order;              // permute

  bool layer() const { return op == Op::conv2d || op == Op::linear; }
  // What the node's own step writes; a value kept in both formats is written as f32.
  Format written() const { return kept & kKeepsF32 ? Format::f32 : Format::u8; }
};

struct Preprocessing {
  std::uint32_t resize = 0, crop = 0;
  std::vector<float> mean, std;
};

struct Artifact {
  std::uint64_t arena_bytes = 0;  // of one image
  std::uint32_t planned_batch = 1;
  std::array<std::uint8_t, 32> policy_hash{};
  Preprocessing preprocessing;
  std::vector<Node> nodes;
  std::vector<std::uint16_t> outputs;
};

// Reads and checks an artifact; the result points into `file`. Throws FormatError.
Artifact read_artifact(Bytes file);

// The rules that hold between nodes (shapes, formats, places); fills in Weight::shape. Throws FormatError.
void check_graph(Artifact& artifact);

// "node 3 'conv1' (conv2d)", for errors.
std::string describe(const Artifact& artifact, std::size_t number);

std::string to_string(const Shape& shape);
std::size_t element_count(const Shape& shape);  // of a checked shape
std::size_t element_bytes(Format format);

}  // namespace bitplan
