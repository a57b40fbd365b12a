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

// In the order in which a value's formats lie in memory.
constexpr std::array<Format, 5> kFormats = {Format::f32, Format::u8, Format::u4, Format::u2, Format::u1};
constexpr std::array<const char*, 6> kFormatNames = {"none", "f32", "u8", "u4", "u2", "u1"};
constexpr std::array<const char*, 4> kKernelNames = {"floats", "bytes", "bits", "lookup"};

constexpr const char* name_of(Format format) { return kFormatNames[unsigned(format)]; }
constexpr std::uint8_t mask_of(Format format) { return std::uint8_t(1u << (unsigned(format) - 1)); }

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
  std::uint8_t encoding = 0;     // its number
  Codec codec = Codec::float32;  // that of the layer in memory
  Kernel kernel = Kernel::floats;
  std::uint32_t number = 0;  // apb, pruned: weights kept; even: bits; xor: sixteenths of a bit per four weights
  std::uint64_t size = 0;
  LayerShape shape;
  Bytes data;
};

struct Node {
  Op op = Op::input;
  Activation activation;
  std::uint8_t kept = 0;  // sum of mask_of
  Format read = Format::none;
  std::array<Range, 4> ranges;  // of u8, u4, u2, u1
  Range read_range;             // of a layer that reads u4, u2 or u1
  std::uint32_t offset = 0;     // of the first format, for one image
  Shape shape;
  std::vector<std::uint16_t> inputs;
  std::string name;

  Window window;                                // conv2d, pools; pad uses its padding
  std::uint32_t groups = 1;                     // conv2d
  Weight weight;                                // conv2d, linear
  Bytes constants;                              // scale shift: scales, then shifts
  bool count_padding = false;                   // average pool
  bool keep = false;                            // mean
  std::array<std::uint32_t, 2> pad_channels{};  // pad: before, after
  float pad_value = 0;                          // pad
  std::vector<SliceRange> slices;               // slice
  std::vector<std::uint8_t> order;              // permute

  bool layer() const { return op == Op::conv2d || op == Op::linear; }
  // The format in which it reads its input `position`: a layer of codes reads its residual in u8.
  Format read_format(std::size_t position) const {
    return layer() && position > 0 && read != Format::f32 ? Format::u8 : read;
  }
  bool keeps(Format format) const { return kept & mask_of(format); }
  // Of f32: one that means nothing.
  Range range(Format format) const { return format < Format::u8 ? Range{} : ranges[unsigned(format) - 2]; }
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
std::size_t element_bytes(Format format);       // of f32 and u8

// The last axis in memory (the channels of an image), whose elements lie side by side.
std::size_t channel_count(const Shape& shape);
// Bytes of the channels of one pixel.
std::size_t run_bytes(std::size_t channels, Format format);
// Where a kept format of a node's value lies, for one image; for Format::none, where the last one ends.
std::uint64_t place_of(const Node& node, Format format);

}  // namespace bitplan
