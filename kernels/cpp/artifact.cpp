// Header and records of an artifact; what holds between nodes is in check_graph.cpp.
#include "artifact.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <unordered_set>

#include "aligned_buffer.h"
#include "bytes.h"
#include "channel_numbers.h"
#include "codec.h"
#include "coded_levels.h"
#include "error.h"
#include "repeats.h"

namespace bitplan {
namespace {

constexpr std::uint32_t kVersion = 4;
constexpr std::size_t kHeaderBytes = 112;
constexpr char kMagic[8] = {'B', 'I', 'T', 'P', 'L', 'A', 'N', '\0'};
constexpr std::uint64_t kMaxArenaBytes = std::uint64_t(1) << 40;  // of a whole batch
constexpr std::size_t kMaxRank = 8;
constexpr std::uint64_t kMaxElements = 0xFFFFFFFFu;  // of one value of one image

// Reads a part of the file front to back.
class Cursor {
 public:
  Cursor(Bytes data, const char* part) : data_(data), part_(part) {}

  template <typename T>
  T get(const char* what) {
    return load<T>(take(sizeof(T), what).data());
  }

  Bytes take(std::size_t size, const char* what) {
    if (size > data_.size() - at_)
      throw FormatError(text(part_, " ends inside ", what, " (byte ", at_, " of ", data_.size(), ")"));
    at_ += size;
    return data_.subspan(at_ - size, size);
  }

  void check_end(const char* last) const {
    if (at_ != data_.size()) throw FormatError(text(part_, " has ", data_.size() - at_, " bytes behind ", last));
  }

 private:
  Bytes data_;
  const char* part_;
  std::size_t at_ = 0;
};

bool valid_utf8(Bytes name) {
  for (std::size_t i = 0; i < name.size();) {
    const std::uint8_t lead = name[i++];
    if (lead < 0x80) continue;
    const int more = lead >= 0xC2 && lead < 0xE0   ? 1
                     : lead >= 0xE0 && lead < 0xF0 ? 2
                     : lead >= 0xF0 && lead < 0xF5 ? 3
                                                   : 0;
    if (more == 0 || name.size() - i < std::size_t(more)) return false;
    std::uint32_t point = lead & (0x3Fu >> more);
    for (int j = 0; j < more; ++j, ++i) {
      if ((name[i] & 0xC0) != 0x80) return false;
      point = point << 6 | (name[i] & 0x3Fu);
    }
    const bool overlong = (more == 2 && point < 0x800) || (more == 3 && point < 0x10000);
    if (overlong || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000)) return false;
  }
  return true;
}

Preprocessing read_preprocessing(Cursor& graph) {
  Preprocessing result;
  result.resize = graph.get<std::uint16_t>("preprocessing");
  result.crop = graph.get<std::uint16_t>("preprocessing");
  const std::size_t channels = graph.get<std::uint16_t>("preprocessing");
  for (std::size_t c = 0; c < channels; ++c) {
    const float mean = graph.get<float>("preprocessing"), std = graph.get<float>("preprocessing");
    if (!std::isfinite(mean) || !std::isfinite(std) || !(std > 0))
      throw FormatError(text("preprocessing of channel ", c, " has mean ", mean, " and std ", std,
                             "; expected finite numbers and a positive std"));
    result.mean.push_back(mean);
    result.std.push_back(std);
  }
  return result;
}

template <std::size_t N>
void read_u16s(Cursor& graph, std::array<std::uint32_t, N>& numbers, const char* what) {
  for (std::uint32_t& number : numbers) number = graph.get<std::uint16_t>(what);
}

// The range of a format; `what` leads errors.
Range read_range(Cursor& records, Format format, const char* what) {
  const auto scale = records.get<float>("a range");
  const unsigned zero_point = records.get<std::uint8_t>("a range");
  if (!std::isfinite(scale) || !(scale > 0))
    throw FormatError(
        text("the scale of ", what, " in ", name_of(format), " is ", scale, "; expected a positive finite number"));
  const bool halves = format == Format::u1;
  const unsigned most = halves ? 2 : (1u << bits_of(format)) - 1;
  if (zero_point > most)
    throw FormatError(
        text("the zero point of ", what, " in ", name_of(format), " is ", zero_point, "; expected 0 to ", most));
  return {scale, halves ? 0.5f * float(zero_point) : float(zero_point)};
}

void read_weight(Cursor& records, Weight& weight) {
  const unsigned encoding = records.get<std::uint8_t>("a weight's record");
  if (encoding >= kCodecs.size())
    throw FormatError(text("unknown encoding number ", encoding, "; this version knows 0 to ", kCodecs.size() - 1));
  weight.encoding = std::uint8_t(encoding);
  weight.codec = kCodecs[encoding].codec;
  const unsigned kernel = records.get<std::uint8_t>("a weight's record");
  if (kernel >= kKernelNames.size())
    throw FormatError(text("unknown kernel number ", kernel, "; this version knows 0 to ", kKernelNames.size() - 1));
  weight.kernel = Kernel(kernel);
  weight.number = records.get<std::uint32_t>("a weight's record");
  weight.size = records.get<std::uint32_t>("a weight's record");
}

void read_fields(Cursor& graph, Node& node) {
  constexpr const char* what = "the fields of an operation";
  switch (node.op) {
    case Op::conv2d:
    case Op::max_pool:
    case Op::average_pool:
      read_u16s(graph, node.window.kernel, what);
      read_u16s(graph, node.window.stride, what);
      read_u16s(graph, node.window.padding, what);
      if (node.op != Op::average_pool) read_u16s(graph, node.window.dilation, what);
      break;
    case Op::pad:
      read_u16s(graph, node.window.padding, what);
      read_u16s(graph, node.pad_channels, what);
      node.pad_value = graph.get<float>(what);
      break;
    case Op::mean:
      node.keep = graph.get<std::uint8_t>(what) != 0;
      break;
    case Op::slice:
      for (std::size_t axis = 0; axis < node.shape.size(); ++axis) {
        const auto start = graph.get<std::uint32_t>(what), stop = graph.get<std::uint32_t>(what);
        node.slices.push_back({start, stop, graph.get<std::uint32_t>(what)});
      }
      break;
    case Op::permute:
      for (std::size_t axis = 0; axis < node.shape.size(); ++axis) node.order.push_back(graph.get<std::uint8_t>(what));
      break;
    default:
      break;
  }
  if (node.op == Op::average_pool) node.count_padding = graph.get<std::uint8_t>(what) != 0;
  if (node.op == Op::conv2d) node.groups = graph.get<std::uint32_t>(what);
}

void read_activation(Cursor& graph, Activation& activation) {
  constexpr const char* what = "an activation";
  const unsigned kind = graph.get<std::uint8_t>(what);
  if (kind > unsigned(ActivationKind::hard_sigmoid))
    throw FormatError(text("unknown activation number ", kind, "; expected 0 to 5"));
  activation.kind = ActivationKind(kind);
  if (activation.kind != ActivationKind::clamp) return;
  activation.low = graph.get<float>(what);
  activation.high = graph.get<float>(what);
  if (!(activation.low <= activation.high))
    throw FormatError(
        text("the activation's limits are ", activation.low, " and ", activation.high, "; expected low <= high"));
}

// What the policy decides of a node: formats kept and read, the place in the arena, ranges, and how a layer is stored.
void read_record(Cursor& records, Node& node) {
  constexpr const char* what = "a node's record";
  constexpr unsigned kAll = (1u << kFormats.size()) - 1;
  node.kept = records.get<std::uint8_t>(what);
  if (node.kept < 1 || node.kept > kAll)
    throw FormatError(text("its value is kept in formats ", unsigned(node.kept), "; expected 1 to ", kAll));
  const unsigned read = records.get<std::uint8_t>(what);
  if (read > kFormats.size())
    throw FormatError(text("the format it reads is ", read, "; expected 0 to ", kFormats.size()));
  node.read = Format(read);
  node.offset = records.get<std::uint32_t>(what);
  const Range range = read_range(records, Format::u8, "its value");
  if (!node.keeps(Format::u8) && (range.scale != 1 || range.zero_point != 0))
    throw FormatError("its value has a range in u8, which it is not kept in");
  node.ranges[0] = range;
  if (!node.layer()) return;
  read_weight(records, node.weight);
  if (has_planes(node.read)) node.read_range = read_range(records, node.read, "what it reads");
}

// Ranges of u4, u2 and u1 stand with the layers that read them; those who read the same must agree.
void hand_over_ranges(Artifact& artifact) {
  std::vector<std::uint8_t> known(artifact.nodes.size());
  for (std::size_t number = 0; number < artifact.nodes.size(); ++number) {
    const Node& node = artifact.nodes[number];
    if (!node.layer() || !has_planes(node.read)) continue;
    Node& source = artifact.nodes[node.inputs.front()];
    Range& range = source.ranges[unsigned(node.read) - 2];
    const bool differs = range.scale != node.read_range.scale || range.zero_point != node.read_range.zero_point;
    if (known[node.inputs.front()] & mask_of(node.read) && differs)
      throw FormatError(text(describe(artifact, number), ": it has another range than an earlier layer for '",
                             source.name, "' in ", name_of(node.read)));
    known[node.inputs.front()] |= mask_of(node.read);
    range = node.read_range;
  }
}

Node read_node(Cursor& graph, Cursor& records, std::size_t number) {
  constexpr const char* what = "a node";
  Node node;
  const unsigned op = graph.get<std::uint8_t>(what);
  if (op >= kOpNames.size())
    throw FormatError(text("unknown operation number ", op, "; this version knows 0 to ", kOpNames.size() - 1));
  node.op = Op(op);
  read_activation(graph, node.activation);
  const std::size_t rank = graph.get<std::uint8_t>(what);
  if (rank < 1 || rank > kMaxRank) throw FormatError(text("its rank is ", rank, "; expected 1 to ", kMaxRank));
  std::uint64_t elements = 1;
  for (std::size_t axis = 0; axis < rank; ++axis) {
    node.shape.push_back(graph.get<std::uint32_t>(what));
    if (node.shape.back() == 0) throw FormatError(text("its shape has a size of zero on axis ", axis));
    elements *= node.shape.back();  // two factors below 2^32
    if (elements > kMaxElements) throw FormatError("its shape has 2^32 elements or more");
  }
  const std::size_t inputs = graph.get<std::uint8_t>(what);
  for (std::size_t i = 0; i < inputs; ++i) {
    const std::size_t back = graph.get<std::uint16_t>(what);
    if (back < 1 || back > number)
      throw FormatError(text("it reads the node ", back, " before it; expected 1 to ", number));
    node.inputs.push_back(std::uint16_t(number - back));
  }
  const Bytes name = graph.take(graph.get<std::uint16_t>(what), "a node's name");
  if (name.empty() || !valid_utf8(name)) throw FormatError("its name is empty or no UTF-8");
  node.name.assign(reinterpret_cast<const char*>(name.data()), name.size());
  read_fields(graph, node);
  read_record(records, node);
  return node;
}

// Checks the header against the file's size and both checksums; gives the number of graph bytes, nodes and outputs.
struct Header {
  std::size_t graph_bytes, nodes, outputs, structure_bytes, stored_structure_bytes;
};

Header read_header(Bytes file, Artifact& artifact) {
  if (file.size() < sizeof kMagic || std::memcmp(file.data(), kMagic, sizeof kMagic) != 0)
    throw FormatError("not a bitplan artifact: it does not begin with the magic bytes BITPLAN\\0");
  if (file.size() < kHeaderBytes)
    throw FormatError(text("truncated: the file has ", file.size(), " bytes, its header alone needs ", kHeaderBytes));
  const std::uint8_t* at = file.data();
  const auto version = load<std::uint32_t>(at + 8);
  if (version != kVersion)
    throw FormatError(text("artifact version ", version, "; this runtime reads version ", kVersion,
                           ": carry its policy out again (optimize realise)"));
  if (load<std::uint32_t>(at + 108) != crc32(at, 108))
    throw FormatError("the header is damaged: its checksum does not match");
  if (load<std::uint32_t>(at + 12) != kHeaderBytes)
    throw FormatError(text("the header claims ", load<std::uint32_t>(at + 12), " bytes; expected ", kHeaderBytes));
  const auto file_bytes = load<std::uint64_t>(at + 16), graph_bytes = load<std::uint64_t>(at + 24);
  const auto weight_bytes = load<std::uint64_t>(at + 32);
  if (file_bytes != file.size())
    throw FormatError(text(file.size() < file_bytes ? "truncated" : "overlong", ": the file has ", file.size(),
                           " bytes; its header says ", file_bytes));
  const std::uint64_t body = file_bytes - kHeaderBytes;
  if (graph_bytes > body || weight_bytes != body - graph_bytes)
    throw FormatError(text("graph (", graph_bytes, " bytes) and weights (", weight_bytes,
                           " bytes) do not add up to the ", body, " bytes behind the header"));
  artifact.arena_bytes = load<std::uint64_t>(at + 40);
  artifact.planned_batch = load<std::uint32_t>(at + 48);
  if (artifact.planned_batch == 0) throw FormatError("the planned batch is 0; expected at least 1");
  if (artifact.arena_bytes > kMaxArenaBytes / artifact.planned_batch)
    throw FormatError(text("an arena of ", artifact.arena_bytes, " bytes for each of ", artifact.planned_batch,
                           " images exceeds the largest possible, 2^40 bytes"));
  std::memcpy(artifact.policy_hash.data(), at + 56, 32);
  if (!std::all_of(at + 100, at + 108, [](std::uint8_t byte) { return byte == 0; }))
    throw FormatError("reserved bytes of the header are not zero");
  if (load<std::uint32_t>(at + 88) != crc32(at + kHeaderBytes, body))
    throw FormatError("graph or weights are damaged: their checksum does not match");
  const Header header{std::size_t(graph_bytes), load<std::uint16_t>(at + 52), load<std::uint16_t>(at + 54),
                      load<std::uint32_t>(at + 92), load<std::uint32_t>(at + 96)};
  if (header.stored_structure_bytes > graph_bytes)
    throw FormatError(text("the structure is said to have ", header.stored_structure_bytes, " of the graph's ",
                           graph_bytes, " bytes"));
  if (header.nodes == 0 || header.outputs == 0)
    throw FormatError(text("the network has ", header.nodes, " nodes and ", header.outputs,
                           " outputs; expected at least one of each"));
  return header;
}

void check_size(const Artifact& artifact, std::size_t number) {
  const Weight& weight = artifact.nodes[number].weight;
  const CodecInfo& info = kCodecs[weight.encoding];
  const std::size_t expected = packed_layer_bytes(info, weight.shape, weight.number);
  const bool coded = info.storage == Storage::entropy;
  if (!coded && weight.size != expected)
    throw FormatError(text(describe(artifact, number), ": its weights have ", weight.size, " bytes; ", info.name,
                           " of its shape needs ", expected));
  const std::size_t scales = coded ? channel_number_bytes(info, weight.shape.out) : 0;
  if (coded && (weight.size % 8 != 0 || weight.size <= scales ||
                weight.shape.count() / kMostLevelsPerByte > weight.size - scales))
    throw FormatError(text(describe(artifact, number), ": its weights have ", weight.size, " bytes; ", info.name,
                           " of its shape has a multiple of 8, more than ", scales, " by at least one for ",
                           kMostLevelsPerByte, " weights"));
}

// Weights lie in the order of their nodes and leave no hole.
void place_weights(Artifact& artifact, Bytes weights) {
  std::uint64_t end = 0;
  for (std::size_t number = 0; number < artifact.nodes.size(); ++number) {
    Node& node = artifact.nodes[number];
    std::uint64_t size;
    if (node.layer()) {
      size = node.weight.size;
      check_size(artifact, number);
    } else if (node.op == Op::scale_shift) {
      size = 8 * std::uint64_t(channel_count(node.shape));
    } else {
      continue;
    }
    if (size > weights.size() - end)
      throw FormatError(text(describe(artifact, number), ": its weights are at ", end, " + ", size, " of ",
                             weights.size(), " bytes"));
    (node.layer() ? node.weight.data : node.constants) = weights.subspan(end, size);
    end += size;
  }
  if (end != weights.size())
    throw FormatError(text("the file holds ", weights.size(), " bytes of weights; its nodes use ", end));
}

}  // namespace

Artifact read_artifact(Bytes file) {
  Artifact artifact;
  const Header header = read_header(file, artifact);
  const Bytes parts = file.subspan(kHeaderBytes, header.graph_bytes);
  const std::vector<std::uint8_t> structure =
      expand_repeats(parts.subspan(0, header.stored_structure_bytes), header.structure_bytes);
  Cursor graph(structure, "the structure"), records(parts.subspan(header.stored_structure_bytes), "the graph");
  artifact.preprocessing = read_preprocessing(graph);
  std::unordered_set<std::string> names;
  for (std::size_t number = 0; number < header.nodes; ++number) {
    try {
      artifact.nodes.push_back(read_node(graph, records, number));
    } catch (const FormatError& error) {
      throw FormatError(text("node ", number, ": ", error.what()));
    }
    if (!names.insert(artifact.nodes.back().name).second)
      throw FormatError(text("node ", number, ": an earlier node is called '", artifact.nodes.back().name, "' too"));
  }
  for (std::size_t i = 0; i < header.outputs; ++i) artifact.outputs.push_back(graph.get<std::uint16_t>("the outputs"));
  graph.check_end("its outputs");
  records.check_end("its last record");
  check_graph(artifact);
  hand_over_ranges(artifact);
  place_weights(artifact, file.subspan(kHeaderBytes + header.graph_bytes));
  return artifact;
}

std::string describe(const Artifact& artifact, std::size_t number) {
  const Node& node = artifact.nodes[number];
  return text("node ", number, " '", node.name, "' (", kOpNames[unsigned(node.op)], ")");
}

std::string to_string(const Shape& shape) {
  std::string result = "(";
  for (std::size_t axis = 0; axis < shape.size(); ++axis) result += (axis ? ", " : "") + std::to_string(shape[axis]);
  return result + ")";
}

std::size_t element_count(const Shape& shape) {
  std::size_t count = 1;
  for (const std::uint32_t size : shape) count *= size;
  return count;
}

std::size_t element_bytes(Format format) { return format == Format::f32 ? 4 : 1; }

std::size_t channel_count(const Shape& shape) { return shape.size() == 3 ? shape.front() : shape.back(); }

std::size_t run_bytes(std::size_t channels, Format format) {
  return has_planes(format) ? 4 * bits_of(format) * words_of(channels) : channels * element_bytes(format);
}

std::uint64_t place_of(const Node& node, Format format) {
  const std::size_t channels = channel_count(node.shape), rows = element_count(node.shape) / channels;
  std::uint64_t place = node.offset;
  for (const Format before : kFormats) {
    if (before == format) break;
    if (node.keeps(before)) place += round_up(rows * run_bytes(channels, before), kAlignment);
  }
  return place;
}

}  // namespace bitplan
