#include "sign_weights.h"

#include <algorithm>

namespace bitplan {
namespace {

constexpr std::size_t kLookupBlock = 32;  // channels
constexpr std::size_t kLookupWord = 128;  // bytes of a block's signs that meet one word of codes

AlignedBuffer zeros(std::size_t bytes) {
  AlignedBuffer buffer(bytes);
  std::fill_n(buffer.data(), bytes, std::uint8_t(0));
  return buffer;
}

// Calls visit(channel, tap, channel of the input, level's sign) for every weight: -1, 0 or 1.
template <typename Visit>
void for_each_sign(const Layer& layer, const KernelTable& kernels, const Visit& visit) {
  const std::size_t inputs = layer.shape.in, taps = layer.taps(), k_steps = layer.k_steps();
  const AlignedBuffer panel(kBlock * kStep * k_steps), buffer(layer.decode_buffer_bytes());
  for (std::size_t block = 0; block < layer.group_blocks(); ++block) {
    layer.decode_blocks(kernels, 0, block, 1, panel.as<std::int8_t>(), buffer.as<std::int8_t>());
    const std::size_t width = std::min(kBlock, layer.shape.out - block * kBlock);
    std::size_t k = 0;
    for (std::size_t tap = 0; tap < taps; ++tap)
      for (std::size_t input = 0; input < inputs; ++input, ++k) {
        const std::int8_t* const levels = panel.as<std::int8_t>() + k / kStep * kBlock * kStep + k % kStep;
        for (std::size_t o = 0; o < width; ++o) {
          const int level = levels[o * kStep];
          visit(block * kBlock + o, tap, input, (level > 0) - (level < 0));
        }
      }
  }
}

}  // namespace

void pack_bit_weights(Layer& layer, const KernelTable& kernels, unsigned planes) {
  const std::size_t words = layer.words(), total = layer.taps() * words, padded = layer.group_blocks() * kBlock;
  const bool masked = layer.codec == Codec::ternary;
  AlignedBuffer signs = zeros(4 * padded * total), masks = zeros(masked ? 4 * padded * total : 0);
  const std::int32_t top = (1 << planes) - 1;
  layer.offset.assign(padded, 0);
  for_each_sign(layer, kernels, [&](std::size_t channel, std::size_t tap, std::size_t input, int sign) {
    const std::size_t at = (channel / kBlock * total + tap * words + input / 32) * kBlock + channel % kBlock;
    const std::uint32_t bit = std::uint32_t(1) << input % 32;
    if (sign > 0) {
      signs.as<std::uint32_t>()[at] |= bit;
      layer.offset[channel] += top;
    }
    if (masked && sign != 0) masks.as<std::uint32_t>()[at] |= bit;
  });
  layer.signs = std::move(signs);
  if (masked) layer.second_signs = std::move(masks);
}

void pack_lookup_weights(Layer& layer, const KernelTable& kernels) {
  const std::size_t words = layer.words(), total = layer.taps() * words;
  const std::size_t bytes = (layer.shape.out + kLookupBlock - 1) / kLookupBlock * total * kLookupWord;
  const bool twice = layer.codec == Codec::ternary;  // level = (sign + second sign) / 2
  AlignedBuffer signs = zeros(bytes), second = zeros(twice ? bytes : 0);
  for_each_sign(layer, kernels, [&](std::size_t channel, std::size_t tap, std::size_t input, int sign) {
    const std::size_t word = channel / kLookupBlock * total + tap * words + input / 32, group = input % 32 / 4;
    const std::size_t half = channel % kLookupBlock / 16;
    const std::size_t at = word * kLookupWord + (half * 4 + group % 4) * 16 + channel % 16;
    const auto bit = std::uint8_t(1u << (group / 4 * 4 + input % 4));
    if (sign >= 0) signs.data()[at] |= bit;
    if (twice && sign > 0) second.data()[at] |= bit;
  });
  layer.signs = std::move(signs);
  if (twice) layer.second_signs = std::move(second);
}

BitWeights Layer::bit_weights(std::size_t first) const {
  const std::size_t at = first * kBlock * taps() * words();
  return {signs.as<std::uint32_t>() + at, second_signs.bytes() ? second_signs.as<std::uint32_t>() + at : nullptr,
          offset.data() + first * kBlock};
}

LookupWeights Layer::lookup_weights(std::size_t first) const {
  const std::size_t at = first * taps() * words() * kLookupWord;
  return {signs.data() + at, second_signs.bytes() ? second_signs.data() + at : nullptr};
}

}  // namespace bitplan
