#include "layer.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "bytes.h"
#include "codec.h"
#include "error.h"

namespace bitplan {
namespace {

// Where a code of the stream belongs (bitplan/encodings/order.py).
struct Position {
  std::size_t channel, k;
};

Position position_of(const LayerShape& shape, std::size_t index) {
  if (shape.depthwise()) return {index % shape.out, index / shape.out};
  const std::size_t k = shape.reduction(), outputs = shape.group_outputs(), whole = k / kStep * kStep;
  const std::size_t group = index / (outputs * k), in_group = index % (outputs * k);
  const std::size_t block = in_group / (kBlock * k), in_block = in_group % (kBlock * k);
  const std::size_t width = std::min(kBlock, outputs - block * kBlock), first = group * outputs + block * kBlock;
  if (in_block < width * whole) {
    const std::size_t in_step = in_block % (width * kStep);
    return {first + in_step / kStep, in_block / (width * kStep) * kStep + in_step % kStep};
  }
  const std::size_t rest = in_block - width * whole;
  return {first + rest / (k - whole), whole + rest % (k - whole)};
}

// Positions in the stream of the kept weights, ascending.
std::vector<std::uint64_t> read_elias_fano(Bytes data, std::size_t k, std::size_t n) {
  std::vector<std::uint64_t> positions;
  if (k == 0) return positions;
  const std::size_t shift = elias_fano_shift(k, n), low_bytes = (k * shift + 7) / 8;
  const Bytes high = data.subspan(low_bytes);
  positions.reserve(k);
  std::size_t low_bit = 0;
  for (std::size_t bit = 0; bit < 8 * high.size(); ++bit) {
    if (!(high[bit / 8] >> (bit % 8) & 1)) continue;
    const std::size_t i = positions.size();
    if (i == k) throw FormatError(text("the positions of kept weights hold more than the ", k, " announced"));
    std::uint64_t low = 0;
    for (std::size_t j = 0; j < shift; ++j, ++low_bit)
      low |= std::uint64_t(data[low_bit / 8] >> (low_bit % 8) & 1) << j;
    const std::uint64_t position = (std::uint64_t(bit - i) << shift) + low;
    if (position >= n || (i > 0 && position <= positions.back()))
      throw FormatError("the positions of kept weights are not ascending or leave the layer");
    positions.push_back(position);
  }
  if (positions.size() != k)
    throw FormatError(
        text("the positions of kept weights hold ", positions.size(), " entries; ", k, " were announced"));
  return positions;
}

float finite(float value, const char* what) {
  if (!std::isfinite(value)) throw FormatError(text(what, " is ", value, "; expected a finite number"));
  return value;
}

// unit x ratio, ratio by ratio.
std::vector<float> read_halves(Bytes data, float unit, std::size_t n, const char* what) {
  std::vector<float> values(n);
  for (std::size_t i = 0; i < n; ++i)
    values[i] = finite(unit * half_to_float(load<std::uint16_t>(data.data() + 2 * i)), what);
  return values;
}

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

// Kept weights become lists by channel; `level(i)` is the level of code i of the stream.
template <typename Level>
void prepare_kept(Layer& layer, Bytes ratios, const std::vector<std::uint64_t>& positions, const Level& level) {
  layer.kept_start.assign(layer.shape.out + 1, 0);
  for (const std::uint64_t position : positions) ++layer.kept_start[position_of(layer.shape, position).channel + 1];
  for (std::size_t o = 0; o < layer.shape.out; ++o) layer.kept_start[o + 1] += layer.kept_start[o];
  layer.kept_k.resize(positions.size());
  layer.kept_residual.resize(positions.size());
  std::vector<std::uint32_t> next(layer.kept_start.begin(), layer.kept_start.end() - 1);
  for (std::size_t i = 0; i < positions.size(); ++i) {
    const auto [channel, k] = position_of(layer.shape, positions[i]);
    const std::uint32_t entry = next[channel]++;
    layer.kept_k[entry] = std::uint32_t(k);
    layer.kept_residual[entry] =
        finite(half_to_float(load<std::uint16_t>(ratios.data() + 2 * i)), "a kept weight") - level(positions[i]);
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

// Depthwise layers are held as levels [tap][channel], or as floats where some weights are kept.
void decode_depthwise(Layer& layer, const KernelTable& kernels, const std::uint8_t* stream) {
  const std::size_t n = layer.shape.count();
  AlignedBuffer levels(n);
  kernels.decode(layer.codec, stream, n, 0, n, levels.as<std::int8_t>());
  layer.codes = std::move(levels);
}

}  // namespace

void Layer::decode_blocks(const KernelTable& kernels, std::size_t group, std::size_t first, std::size_t blocks,
                          std::int8_t* panel, std::int8_t* buffer) const {
  const std::size_t k = shape.reduction(), outputs = shape.group_outputs(), total = shape.count();
  const std::size_t start = group * outputs * k + first * kBlock * k;
  const std::uint8_t* const stream = codes.data();
  if (k % kStep == 0 && (first + blocks) * kBlock <= outputs) {
    kernels.decode(codec, stream, total, start, blocks * kBlock * k, panel);
    return;
  }
  const std::size_t steps = k / kStep, rest = k % kStep;
  for (std::size_t block = 0; block < blocks; ++block) {
    const std::size_t width = std::min(kBlock, outputs - (first + block) * kBlock);
    std::int8_t* target = panel + block * block_bytes();
    kernels.decode(codec, stream, total, start + block * kBlock * k, width * k, buffer);
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
  const LayerShape& shape = layer.shape;
  if (layer.codec == Codec::float32) {
    prepare_float32(layer, node.weight.data);
    return layer;
  }
  const std::size_t n = shape.count(), out = shape.out;
  const Bytes data = node.weight.data;
  const float scale_unit = finite(load<float>(data.data()), "the unit of the scales");
  const float bias_unit = finite(load<float>(data.data() + 4), "the unit of the biases");
  layer.multiplier = read_halves(data.subspan(kUnitBytes), scale_unit, out, "a scale");
  layer.bias = read_halves(data.subspan(kUnitBytes + 2 * out), bias_unit, out, "a bias");
  for (float& multiplier : layer.multiplier) multiplier = finite(multiplier * range.scale, "a scale");

  const std::size_t stored = stored_code_bytes(layer.codec, n);
  const Bytes codes = data.subspan(kUnitBytes + 4 * out, stored);
  AlignedBuffer stream(resident_code_bytes(layer.codec, n));
  if (layer.codec == Codec::ternary)
    repack_ternary(codes, n, stream.data());
  else
    std::memcpy(stream.data(), codes.data(), stored);
  if (shape.depthwise())
    decode_depthwise(layer, kernels, stream.data());
  else
    layer.codes = std::move(stream);

  const std::vector<std::int64_t> sums = level_sums(layer, kernels);
  const bool floats = layer.codec == Codec::apb && shape.depthwise();  // over q - zero point: nothing to fold in
  if (!floats)
    for (std::size_t o = 0; o < out; ++o) {
      const double share = double(range.zero_point) * double(sums[o]) * layer.multiplier[o];
      layer.bias[o] = finite(float(layer.bias[o] - share), "a bias");
    }
  if (layer.codec != Codec::apb) return layer;

  const std::size_t kept = node.weight.kept;
  const Bytes extra = data.subspan(kUnitBytes + 4 * out + stored);
  const Bytes encoded = extra.subspan(2 * kept, elias_fano_bytes(kept, n));
  const std::vector<std::uint64_t> positions = read_elias_fano(encoded, kept, n);
  prepare_kept(layer, extra, positions, [&](std::size_t i) { return codes[i / 8] >> (i % 8) & 1 ? 1.0f : -1.0f; });
  if (!floats) return layer;

  AlignedBuffer weights(4 * n);
  std::copy_n(layer.codes.as<std::int8_t>(), n, weights.as<float>());
  for (std::size_t o = 0; o < out; ++o)
    for (std::size_t i = layer.kept_start[o]; i < layer.kept_start[o + 1]; ++i)
      weights.as<float>()[layer.kept_k[i] * out + o] += layer.kept_residual[i];
  layer.codes = std::move(weights);
  layer.kept_start.clear();
  layer.kept_k.clear();
  layer.kept_residual.clear();
  return layer;
}

}  // namespace bitplan
