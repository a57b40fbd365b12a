// The rules that hold between the nodes of an artifact: shapes follow from inputs (expected_shape.cpp), formats agree,
// values that are needed at the same time do not overlap in the arena.
#include <iterator>
#include <map>
#include <string>

#include "artifact.h"
#include "codec.h"
#include "error.h"
#include "even_levels.h"
#include "expected_shape.h"
#include "pruned.h"
#include "require.h"
#include "xor_network.h"

namespace bitplan {
namespace {

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
  require(
      (weight.codec == Codec::float32) == floats && (weight.kernel == Kernel::floats) == floats,
      text("layers of floats read f32 with the kernel floats, all others codes with another kernel; this one has ",
           kCodecs[weight.encoding].name, ", ", name_of(node.read), " and ", kKernelNames[unsigned(weight.kernel)]));
  if (weight.kernel > Kernel::bytes)
    require(weight.codec >= Codec::ternary && has_planes(node.read),
            text("the kernel ", kKernelNames[unsigned(weight.kernel)],
                 " runs ternary, binary, apb and xor on u4, u2 and u1; this layer has ", kCodecs[weight.encoding].name,
                 " and ", name_of(node.read)));
  require(!has_planes(node.read) || weight.shape.groups == 1,
          text("a layer of ", weight.shape.groups, " groups reads f32 or u8, not ", name_of(node.read)));
  const Storage storage = kCodecs[weight.encoding].storage;
  const std::size_t count = weight.shape.count();
  if (storage == Storage::xor_network)
    require(weight.number >= 1 && weight.number <= kMaxXorRate,
            text("the rate of its code is ", weight.number, " sixteenths; expected 1 to ", kMaxXorRate));
  else if (storage == Storage::pruned)
    require(weight.number <= count && count / kMostPrunedPerKept < weight.number,
            text("it keeps ", weight.number, " of ", count, " weights; expected more than one in ", kMostPrunedPerKept,
                 ", and no more than there are"));
  else if (storage == Storage::even)
    require(weight.number >= 1 && weight.number <= kMostEvenBits,
            text("its levels have ", weight.number, " bits; expected 1 to ", kMostEvenBits));
  else
    require(
        weight.number <= (weight.codec == Codec::apb ? count : 0),
        text("it keeps ", weight.number, " weights; only apb and pruned layers keep any, and no more than there are"));
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
