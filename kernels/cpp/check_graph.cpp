// The rules that hold between the nodes of an artifact: shapes follow from inputs, formats agree, values that are
// needed at the same time do not overlap in the arena.
#include <algorithm>
#include <iterator>
#include <map>
#include <optional>
#include <string>

#include "artifact.h"
#include "codec.h"
#include "error.h"

namespace bitplan {
namespace {

void require(bool holds, const std::string& otherwise) {
  if (!holds) throw FormatError(otherwise);
}

void require_inputs(const Node& node, std::size_t least, std::size_t most) {
  const std::size_t found = node.inputs.size();
  require(found >= least && found <= most,
          text("it has ", found, " inputs; expected ", least, most == least ? "" : text(" to ", most)));
}

void require_image(const Shape& shape) {
  require(shape.size() == 3,
          text("it reads a value of shape ", to_string(shape), "; expected (channels, height, width)"));
}

// Height and width that a window leaves of an image.
Shape windowed(std::uint32_t channels, const Shape& in, const Window& window) {
  Shape out{channels};
  for (std::size_t axis = 0; axis < 2; ++axis) {
    require(window.kernel[axis] > 0 && window.stride[axis] > 0 && window.dilation[axis] > 0,
            text("kernel ", window.kernel[axis], ", stride ", window.stride[axis], " and dilation ",
                 window.dilation[axis], " must be at least 1"));
    const std::uint64_t extent = std::uint64_t(window.dilation[axis]) * (window.kernel[axis] - 1) + 1;
    const std::uint64_t size = std::uint64_t(in[1 + axis]) + window.padding[2 * axis] + window.padding[2 * axis + 1];
    require(size >= extent, text("a window of ", extent, " does not fit into the padded size ", size));
    out.push_back(std::uint32_t((size - extent) / window.stride[axis] + 1));
  }
  return out;
}

// What the shape of the node must be, from the shapes of its inputs.
Shape expected_shape(Node& node, const std::vector<const Shape*>& in) {
  Shape shape = in.empty() ? node.shape : *in[0];
  switch (node.op) {
    case Op::input:
      require_inputs(node, 0, 0);
      return shape;
    case Op::conv2d: {
      require_inputs(node, 1, 2);
      require_image(shape);
      require(node.shape.size() == 3, "its value is no image");
      const std::uint32_t out = node.shape[0];
      require(node.groups > 0 && shape[0] % node.groups == 0 && out % node.groups == 0,
              text(node.groups, " groups do not divide ", shape[0], " input and ", out, " output channels"));
      node.weight.shape = {out, shape[0], node.window.kernel[0], node.window.kernel[1], node.groups};
      return windowed(out, shape, node.window);
    }
    case Op::linear:
      require_inputs(node, 1, 2);
      require(shape.size() != 3, "it reads an image; a linear layer needs a vector or rows of features");
      node.weight.shape = {node.shape.back(), shape.back(), 1, 1, 1};
      shape.back() = node.shape.back();
      return shape;
    case Op::scale_shift:
    case Op::activate:
    case Op::softmax:
      require_inputs(node, 1, 1);
      return shape;
    case Op::add:
    case Op::mul: {
      require_inputs(node, 2, 2);
      const Shape& other = *in[1];
      require(other == shape || (shape.size() == 3 && other == Shape{shape[0], 1, 1}),
              text("shapes ", to_string(shape), " and ", to_string(other), " do not go together"));
      return shape;
    }
    case Op::concat: {
      require_inputs(node, 1, 255);
      std::uint64_t joined = 0;
      for (const Shape* part : in) {
        require(part->size() == shape.size() && std::equal(part->begin() + 1, part->end(), shape.begin() + 1),
                text("shapes ", to_string(shape), " and ", to_string(*part), " differ behind the first axis"));
        joined += part->front();
      }
      require(joined <= 0xFFFFFFFFu, "the joined axis is too long");
      shape[0] = std::uint32_t(joined);
      return shape;
    }
    case Op::max_pool:
    case Op::average_pool:
      require_inputs(node, 1, 1);
      require_image(shape);
      return windowed(shape[0], shape, node.window);
    case Op::mean:
      require_inputs(node, 1, 1);
      require_image(shape);
      return node.keep ? Shape{shape[0], 1, 1} : Shape{shape[0]};
    case Op::pad: {
      require_inputs(node, 1, 1);
      require_image(shape);
      const auto& [top, bottom, left, right] = node.window.padding;
      const std::uint64_t sizes[3] = {std::uint64_t(shape[0]) + node.pad_channels[0] + node.pad_channels[1],
                                      std::uint64_t(shape[1]) + top + bottom, std::uint64_t(shape[2]) + left + right};
      for (std::size_t axis = 0; axis < 3; ++axis) {
        require(sizes[axis] <= 0xFFFFFFFFu, "a padded axis is too long");
        shape[axis] = std::uint32_t(sizes[axis]);
      }
      return shape;
    }
    case Op::slice:
      require_inputs(node, 1, 1);
      require(node.shape.size() == shape.size(), "its value has another rank than its input");
      for (std::size_t axis = 0; axis < shape.size(); ++axis) {
        const auto [start, stop, step] = node.slices[axis];
        require(start < stop && stop <= shape[axis] && step > 0,
                text("slice ", start, ":", stop, ":", step, " does not fit axis ", axis, " of ", to_string(shape)));
        shape[axis] = (stop - start - 1) / step + 1;
      }
      return shape;
    case Op::reshape:
      require_inputs(node, 1, 1);
      require(element_count(shape) == element_count(node.shape),
              text("shapes ", to_string(shape), " and ", to_string(node.shape), " have different numbers of elements"));
      return node.shape;
    case Op::permute: {
      require_inputs(node, 1, 1);
      require(node.shape.size() == shape.size(), "its value has another rank than its input");
      Shape permuted;
      unsigned seen = 0;
      for (const std::uint8_t axis : node.order) {
        require(axis < shape.size() && !(seen >> axis & 1), "its order is no permutation of the axes");
        seen |= 1u << axis;
        permuted.push_back(shape[axis]);
      }
      return permuted;
    }
  }
  return shape;
}

// A weight of so many elements that counting its bytes could overflow is not in any file.
void check_weight_count(const LayerShape& shape) {
  constexpr unsigned __int128 kMost = std::uint64_t(1) << 40;
  const auto taps = (unsigned __int128)shape.height * shape.width * (shape.in / shape.groups);
  require(taps <= kMost && taps * shape.out <= kMost, "its weight has more than 2^40 elements");
}

bool takes_activation(Op op) { return op >= Op::conv2d && op <= Op::mul; }

std::string format_names(std::uint8_t mask) {
  std::string names;
  for (const Format format : kFormats)
    if (mask & mask_of(format)) names += (names.empty() ? "" : "+") + std::string(name_of(format));
  return names;
}

// What a value is kept in (bitplan/formats.py), from the formats in which it is read or returned.
std::uint8_t kept_formats(const Node& node, std::uint8_t read) {
  const std::uint8_t f32 = mask_of(Format::f32);
  if (read == 0) return f32;
  return node.layer() || read == mask_of(Format::u8) ? read : read | f32;
}

void check_weight(const Node& node) {
  const Weight& weight = node.weight;
  const bool floats = node.read == Format::f32;
  require((weight.codec == Codec::float32) == floats && (weight.kernel == Kernel::floats) == floats,
          text("float32 layers read f32 with the kernel floats, all others codes with another kernel; this one has ",
               kCodecs[unsigned(weight.codec)].name, ", ", name_of(node.read), " and ",
               kKernelNames[unsigned(weight.kernel)]));
  if (weight.kernel > Kernel::bytes)
    require(weight.codec >= Codec::ternary && has_planes(node.read),
            text("the kernel ", kKernelNames[unsigned(weight.kernel)],
                 " runs ternary, binary and apb on u4, u2 and u1; this layer has ",
                 kCodecs[unsigned(weight.codec)].name, " and ", name_of(node.read)));
  require(!has_planes(node.read) || weight.shape.groups == 1,
          text("a layer of ", weight.shape.groups, " groups reads f32 or u8, not ", name_of(node.read)));
  require(weight.kept <= (weight.codec == Codec::apb ? weight.shape.count() : 0),
          text("it keeps ", weight.kept, " weights; only apb keeps any, and no more than there are"));
}

// `read`: the formats in which its value is read or returned.
void check_formats(const Node& node, std::uint8_t read) {
  if (node.inputs.empty()) {
    require(node.read == Format::none, "it has no inputs, yet a format to read them in");
  } else if (node.layer()) {
    check_weight(node);
  } else {
    const bool codes = node.kept == mask_of(Format::u8) && node.op != Op::softmax;
    require(node.read == (codes ? Format::u8 : Format::f32),
            text("it reads ", name_of(node.read),
                 "; an operation without weights reads u8 where its value is kept in u8 "
                 "only and it is no softmax, else f32"));
  }
  const std::uint8_t expected = kept_formats(node, read);
  require(node.kept == expected, text("its value is kept in ", format_names(node.kept),
                                      "; those who read it make that ", format_names(expected)));
}

// A value's formats in the arena, in bytes of one image.
struct Place {
  std::uint64_t begin, end;
  std::size_t last_step;
  const Node* node;
};

Place checked_place(const Artifact& artifact, const Node& node, std::size_t last_step) {
  const std::uint64_t end = place_of(node, Format::none);
  require(node.offset % sizeof(float) == 0, text("the offset ", node.offset, " of its value is no multiple of 4"));
  require(end <= artifact.arena_bytes, text("its value at ", node.offset, " + ", end - node.offset,
                                            " bytes leaves the arena of ", artifact.arena_bytes, " bytes"));
  return {node.offset, end, last_step, &node};
}

// The values alive at a step, by their first byte. Adding one checks it against its neighbours.
class LivePlaces {
 public:
  void add(const Place& place) {
    const auto after = places_.lower_bound(place.begin);
    if (after != places_.end() && after->second.begin < place.end) overlap(after->second);
    if (after != places_.begin() && std::prev(after)->second.end > place.begin) overlap(std::prev(after)->second);
    places_.emplace(place.begin, place);
    by_end_.emplace(place.last_step, place.begin);
  }

  void remove_before(std::size_t step) {
    while (!by_end_.empty() && by_end_.begin()->first < step) {
      places_.erase(by_end_.begin()->second);
      by_end_.erase(by_end_.begin());
    }
  }

 private:
  [[noreturn]] static void overlap(const Place& other) {
    throw FormatError(text("its value overlaps that of '", other.node->name, "' in the arena while both are needed"));
  }

  std::map<std::uint64_t, Place> places_;
  std::multimap<std::size_t, std::uint64_t> by_end_;
};

// Who reads a value, and how: the formats, and the last step that needs it (the number of nodes for an output).
struct Readers {
  std::uint8_t formats = 0;
  std::size_t last_step = 0;
};

std::vector<Readers> find_readers(const Artifact& artifact) {
  const std::size_t nodes = artifact.nodes.size();
  std::vector<Readers> readers(nodes);
  for (std::size_t number = 0; number < nodes; ++number) {
    const Node& node = artifact.nodes[number];
    readers[number].last_step = number;
    if (!node.inputs.empty() && node.read == Format::none)
      throw FormatError(text(describe(artifact, number), ": it has inputs, but no format to read them in"));
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      if (node.inputs[i] >= number)
        throw FormatError(
            text(describe(artifact, number), ": it reads node ", node.inputs[i], ", which does not come before it"));
      Readers& input = readers[node.inputs[i]];
      input.formats |= mask_of(node.read_format(i));
      input.last_step = number;
    }
  }
  for (const std::uint16_t output : artifact.outputs) {
    if (output >= nodes) throw FormatError(text("output ", output, " is no node; the network has ", nodes));
    if (readers[output].last_step == nodes) throw FormatError(text(describe(artifact, output), ": an output twice"));
    readers[output].formats |= mask_of(Format::f32);
    readers[output].last_step = nodes;
  }
  return readers;
}

void check_node(Artifact& artifact, std::size_t number, LivePlaces& live, const Readers& readers) {
  Node& node = artifact.nodes[number];
  std::vector<const Shape*> in;
  for (const std::uint16_t input : node.inputs) in.push_back(&artifact.nodes[input].shape);
  const Shape expected = expected_shape(node, in);
  require(expected == node.shape,
          text("its shape is ", to_string(node.shape), "; its inputs make it ", to_string(expected)));
  if (node.layer()) check_weight_count(node.weight.shape);
  if (node.layer() && in.size() == 2)
    require(*in[1] == node.shape,
            text("its residual has shape ", to_string(*in[1]), "; expected ", to_string(node.shape)));
  require(takes_activation(node.op) || node.activation.kind == ActivationKind::identity,
          "it cannot have an activation");
  check_formats(node, readers.formats);
  const std::size_t channels = artifact.preprocessing.mean.size();
  if (node.op == Op::input && node.shape.size() == 3 && channels != 0)
    require(node.shape[0] == channels,
            text("preprocessing has ", channels, " channels; the input has ", node.shape[0]));
  live.remove_before(number);
  live.add(checked_place(artifact, node, readers.last_step));
}

}  // namespace

void check_graph(Artifact& artifact) {
  const std::vector<Readers> readers = find_readers(artifact);
  LivePlaces live;
  for (std::size_t number = 0; number < artifact.nodes.size(); ++number) {
    try {
      check_node(artifact, number, live, readers[number]);
    } catch (const FormatError& error) {
      throw FormatError(text(describe(artifact, number), ": ", error.what()));
    }
  }
}

}  // namespace bitplan
