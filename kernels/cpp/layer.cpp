#include "layer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "bits.h"
#include "bytes.h"
#include "channel_numbers.h"
#include "codec.h"
#include "coded_levels.h"
#include "error.h"
#include "even_levels.h"
#include "pruned.h"
#include "require.h"
#include "sign_weights.h"
#include "xor_network.h"

namespace bitplan {
namespace {

// Five base-3 digits in a byte become two bits each.
void repack_ternary(Bytes stored, std::size_t n, std::uint8_t* resident) {
  std::memset(resident, 0, resident_code_bytes(Codec::ternary, n));
  std::size_t i = 0;
  for (unsigned byte : stored) {
    if (byte > 242) throw FormatError(text("byte ", byte, " is not five ternary digits"));
    for (int digit = 0; digit < 5 && i < n; ++digit, ++i, byte /= 3)
      resident[i / 4] = std::uint8_t(resident[i / 4] | (byte % 3) << (i % 4 * 2));
  }
}

// Entropy-coded levels become the codes of int8 or ternary.
void read_coded(const Layer& layer, Bytes coded) {
  const LayerShape& shape = layer.shape;
  const std::size_t n = shape.count();
  const AlignedBuffer rows(n);
  decode_levels(coded, shape.out, shape.reduction(), layer.max_level(), rows.as<std::int8_t>());
  if (layer.codec == Codec::int8) return rows_to_stream(shape, rows.as<std::int8_t>(), layer.codes.as<std::int8_t>());
  const AlignedBuffer stream(n);
  rows_to_stream(shape, rows.as<std::int8_t>(), stream.as<std::int8_t>());
  std::memset(layer.codes.data(), 0, layer.codes.bytes());
  for (std::size_t i = 0; i < n; ++i)
    layer.codes.data()[i / 4] |= std::uint8_t((stream.as<std::int8_t>()[i] + 1) << (i % 4 * 2));
}

// [group][block][step][channel][4] floats of the file become [group][block][k][16], zeros behind the last channel.
void prepare_float32(Layer& layer, Bytes data) {
  const LayerShape& shape = layer.shape;
  const std::uint8_t* at = data.data();
  layer.bias.resize(shape.out);
  for (std::size_t o = 0; o < shape.out; ++o) layer.bias[o] = finite(load<float>(at + 4 * o), "a bias");
  at += 4 * shape.out;
  const std::size_t k = shape.reduction(), blocks = layer.group_blocks();
  const std::size_t floats = shape.depthwise() ? shape.count() : shape.groups * blocks * kBlock * k;
  layer.codes = AlignedBuffer(4 * floats);
  float* const panels = layer.codes.as<float>();
  const auto next = [&at] {
    const float value = finite(load<float>(at), "a weight");
    at += 4;
    return value;
  };
  if (shape.depthwise()) {
    std::generate_n(panels, floats, next);
    return;
  }
  std::fill_n(panels, floats, 0.0f);
  for (std::size_t i = 0; i < shape.groups * blocks; ++i) {
    float* const panel = panels + i * k * kBlock;
    const std::size_t width = std::min(kBlock, shape.group_outputs() - i % blocks * kBlock);
    for (std::size_t step = 0; step < k; step += kStep)
      for (std::size_t column = 0; column < width; ++column)
        for (std::size_t position = step; position < std::min(step + kStep, k); ++position)
          panel[position * kBlock + column] = next();
  }
}

// Sums of levels by channel, and checks that no accumulator of 32 bits can overflow.
std::vector<std::int64_t> level_sums(const Layer& layer, const KernelTable& kernels) {
  const LayerShape& shape = layer.shape;
  std::vector<std::int64_t> sums(shape.out, 0), magnitudes(shape.out, 0);
  const auto count = [&](std::size_t channel, int level) {
    if (level < -127) throw FormatError("a level of -128; expected -127 to 127");
    sums[channel] += level;
    magnitudes[channel] += std::abs(level);
  };
  if (shape.depthwise()) {
    const std::int8_t* levels = layer.codes.as<std::int8_t>();
    for (std::size_t i = 0; i < shape.count(); ++i) count(i % shape.out, levels[i]);
  } else {
    const AlignedBuffer panel(layer.block_bytes()), buffer(layer.decode_buffer_bytes());
    const std::int8_t* levels = panel.as<std::int8_t>();
    for (std::size_t group = 0; group < shape.groups; ++group)
      for (std::size_t block = 0; block < layer.group_blocks(); ++block) {
        layer.decode_blocks(kernels, group, block, 1, panel.as<std::int8_t>(), buffer.as<std::int8_t>());
        const std::size_t first = group * shape.group_outputs() + block * kBlock;
        const std::size_t width = std::min(kBlock, shape.group_outputs() - block * kBlock);
        for (std::size_t i = 0; i < layer.block_bytes(); ++i)
          if (const std::size_t column = i / kStep % kBlock; column < width) count(first + column, levels[i]);
      }
  }
  for (const std::int64_t magnitude : magnitudes)
    if (magnitude * 255 > 0x7FFFFFFF) throw FormatError("its weights are so many that a sum could exceed 32 bits");
  return sums;
}

// The level sums' share of the zero point goes into the biases.
void fold_zero_point(Layer& layer, float zero_point, const KernelTable& kernels) {
  const std::vector<std::int64_t> sums = level_sums(layer, kernels);
  for (std::size_t o = 0; o < layer.shape.out; ++o) {
    const double share = double(zero_point) * double(sums[o]) * layer.multiplier[o];
    layer.bias[o] = finite(float(layer.bias[o] - share), "a bias");
  }
}

// Depthwise layers are held as levels [tap][channel], in the order of the stream.
AlignedBuffer depthwise_levels(const Layer& layer, const KernelTable& kernels, const std::vector<KeptWeight>& kept) {
  const std::size_t n = layer.shape.count();
  AlignedBuffer levels(n);
  kernels.decode(layer.codec, layer.unit, layer.codes.data(), n, 0, n, levels.as<std::int8_t>());
  for (const KeptWeight& weight : kept) levels.as<std::int8_t>()[weight.index] = weight.level;
  return levels;
}

}  // namespace

int Layer::max_level() const {
  switch (codec) {
    case Codec::int4:
      return 15;
    case Codec::int3:
      return 7;
    case Codec::int2:
      return 3;
    case Codec::ternary:
    case Codec::binary:
      return 1;
    case Codec::apb:
      return kept_apart() ? 1 : 63;
    default:
      return 127;
  }
}

void Layer::decode_blocks(const KernelTable& kernels, std::size_t group, std::size_t first, std::size_t blocks,
                          std::int8_t* panel, std::int8_t* buffer) const {
  decode_codes(kernels, group, first, blocks, panel, buffer);
  if (kept_levels.start.empty()) return;
  kept_levels.scatter(panel_of(group, first), first % kMaxBlocks * block_bytes(), blocks * block_bytes(), panel);
}

void Layer::decode_codes(const KernelTable& kernels, std::size_t group, std::size_t first, std::size_t blocks,
                         std::int8_t* panel, std::int8_t* buffer) const {
  const std::size_t k = shape.reduction(), outputs = shape.group_outputs(), total = shape.count();
  const std::size_t start = group * outputs * k + first * kBlock * k;
  const std::uint8_t* const stream = codes.data();
  const int magnitude = kept_apart() ? 1 : unit;
  if (k % kStep == 0 && (first + blocks) * kBlock <= outputs) {
    kernels.decode(codec, magnitude, stream, total, start, blocks * kBlock * k, panel);
    return;
  }
  const std::size_t steps = k / kStep, rest = k % kStep;
  for (std::size_t block = 0; block < blocks; ++block) {
    const std::size_t width = std::min(kBlock, outputs - (first + block) * kBlock);
    std::int8_t* target = panel + block * block_bytes();
    kernels.decode(codec, magnitude, stream, total, start + block * kBlock * k, width * k, buffer);
    if (width == kBlock) {
      std::memcpy(target, buffer, steps * kBlock * kStep);
    } else {
      std::memset(target, 0, block_bytes());
      for (std::size_t step = 0; step < steps; ++step)
        std::memcpy(target + step * kBlock * kStep, buffer + step * width * kStep, width * kStep);
    }
    if (rest == 0) continue;
    target += steps * kBlock * kStep;
    std::memset(target, 0, kBlock * kStep);
    for (std::size_t column = 0; column < width; ++column)
      std::memcpy(target + column * kStep, buffer + steps * width * kStep + column * rest, rest);
  }
}

Layer prepare_layer(const Node& node, const Range& range, const KernelTable& kernels) {
  Layer layer;
  layer.shape = node.weight.shape;
  layer.codec = node.weight.codec;
  layer.kernel = node.weight.kernel;
  const LayerShape& shape = layer.shape;
  const std::size_t n = shape.count(), out = shape.out;
  const Bytes data = node.weight.data;
  const CodecInfo& info = kCodecs[node.weight.encoding];
  const Storage storage = info.storage;
  if (layer.codec == Codec::float32) {
    if (storage == Storage::pruned) {
      const AlignedBuffer dense = dense_floats(data, out, node.weight.number, n);
      prepare_float32(layer, Bytes(dense.data(), dense.bytes()));
    } else {
      prepare_float32(layer, data);
    }
    return layer;
  }
  ChannelNumbers numbers = read_channel_numbers(info, data, out);
  layer.multiplier = std::move(numbers.scale);
  layer.bias = std::move(numbers.bias);
  for (float& multiplier : layer.multiplier) multiplier = finite(multiplier * range.scale, "a scale");

  const Bytes behind = data.subspan(channel_number_bytes(info, out));
  const std::size_t stored = storage == Storage::plain ? stored_code_bytes(layer.codec, n) : behind.size();
  const Bytes codes = behind.subspan(0, stored);
  layer.codes = AlignedBuffer(resident_code_bytes(layer.codec, n));
  if (storage == Storage::entropy) {
    read_coded(layer, codes);
  } else if (storage == Storage::xor_network) {
    decode_xor(codes.subspan(0, kXorHeaderBytes + xor_code_bytes(n, node.weight.number)), n, node.weight.number,
               layer.codes.data());
  } else if (storage == Storage::even) {
    read_even_levels(codes, node.weight.number, n, layer.codes.as<std::int8_t>());
  } else if (storage == Storage::pruned) {
    spread_levels(codes, node.weight.number, n, layer.codes.as<std::int8_t>());
  } else if (layer.codec == Codec::ternary) {
    repack_ternary(codes, n, layer.codes.data());
  } else {
    std::memcpy(layer.codes.data(), codes.data(), stored);
  }
  StoredKept kept;
  if (layer.codec == Codec::apb) {
    kept = read_kept(behind.subspan(stored), node.weight.number, n, info.kept_bits, codes);
    layer.unit = kept.unit;
    if (!shape.depthwise()) layer.kept_levels = by_panel(shape, kept.weights);
  }
  if (shape.depthwise()) layer.codes = depthwise_levels(layer, kernels, kept.weights);
  fold_zero_point(layer, range.zero_point, kernels);
  if (layer.kernel != Kernel::bits && layer.kernel != Kernel::lookup) {
    if (!layer.kept_levels.start.empty() && kernels.add_kept_bytes && shape.reduction() >> kColumnBits == 0) {
      layer.kept_levels = {};
      layer.kept_panels = by_run(shape, kept, layer.codes.data());
    }
    return layer;
  }

  layer.kept_levels = {};
  if (layer.kernel == Kernel::bits)
    pack_bit_weights(layer, kernels, bits_of(node.read));
  else
    pack_lookup_weights(layer, kernels);
  if (layer.codec == Codec::apb)
    layer.kept_residuals = by_channel(shape, kept, [&](std::size_t i) { return bit_at(codes.data(), i); });
  layer.codes = {};
  return layer;
}

}  // namespace bitplan
