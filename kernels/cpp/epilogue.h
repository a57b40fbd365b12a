// From accumulators to values: y = activation(multiplier c + bias + residual), in every format that is kept.
#pragma once

#include <optional>

#include "layer.h"
#include "step.h"

namespace bitplan {

// What becomes of a layer's accumulators.
struct Finish {
  Finish(const Node& node, const std::vector<Value>& inputs, const Outputs& kept)
      : activation(node.activation), outputs(kept) {
    if (inputs.size() > 1) residual = inputs[1];
  }

  // Whether products can be stored at once (KernelTable::conv_u8s8_store).
  bool at_once() const {
    return outputs.size() == 1 && outputs[0].format == Format::u8 && activation.kind <= ActivationKind::clamp &&
           (!residual || residual->format == Format::u8);
  }

  Activation activation;
  std::optional<Value> residual;
  Outputs outputs;
};

// Rows (output pixels, counted through all images) x output channels.
struct Tile {
  std::size_t first_row, rows, first_channel, channels;
};

// Whether the tile's channels fill whole words of planes, so that other threads write other words.
inline bool fills_words(const Tile& tile, const Value& out) {
  const std::size_t end = tile.first_channel + tile.channels;
  return tile.first_channel % 32 == 0 && (end % 32 == 0 || end == out.channels());
}

inline Epilogue make_epilogue(const Call& call, const Layer& layer, const Finish& finish, const Tile& tile) {
  Epilogue epilogue;
  if (!layer.multiplier.empty()) epilogue.multiplier = layer.multiplier.data() + tile.first_channel;
  epilogue.bias = layer.bias.data() + tile.first_channel;
  epilogue.activation = finish.activation;
  if (!finish.residual) return epilogue;
  const Value& residual = *finish.residual;
  const std::size_t element = tile.first_row * residual.channels() + tile.first_channel;
  epilogue.residual = call.at<std::uint8_t>(residual) + element * element_bytes(residual.format);
  epilogue.residual_stride = residual.channels();
  epilogue.residual_format = residual.format;
  epilogue.residual_range = residual.range;
  return epilogue;
}

inline void store_tile(const KernelTable& kernels, const std::int32_t* sums, std::size_t ldc, const Tile& tile,
                       const Epilogue& epilogue) {
  kernels.store_i32(sums, ldc, tile.rows, tile.channels, epilogue);
}
inline void store_tile(const KernelTable& kernels, const float* sums, std::size_t ldc, const Tile& tile,
                       const Epilogue& epilogue) {
  kernels.store_f32(sums, ldc, tile.rows, tile.channels, epilogue);
}

// Planes of a tile that shares words with its neighbours (groups of a width that is no multiple of 32): they are made
// aside, and each word then takes over the bits that are the tile's own.
template <typename Sum>
void store_shared_words(const Call& call, const Value& out, const Tile& tile, Epilogue epilogue, const Sum* sums,
                        std::size_t ldc) {
  constexpr std::size_t kMostWords = kMaxBlocks * kBlock / 32 * 4;
  const std::size_t planes = bits_of(out.format), words = words_of(tile.channels), shift = tile.first_channel % 32;
  std::uint32_t aside[kMaxRows * kMostWords];
  epilogue.out = aside;
  epilogue.out_stride = planes * words;
  epilogue.out_plane = words;
  store_tile(call.kernels, sums, ldc, tile, epilogue);
  const bool last = tile.first_channel + tile.channels == out.channels();  // the bits behind are its own too
  for (std::size_t row = 0; row < tile.rows; ++row)
    for (std::size_t plane = 0; plane < planes; ++plane) {
      const std::uint32_t* const from = aside + (row * planes + plane) * words;
      std::uint32_t* const to = call.at<std::uint32_t>(out) + ((tile.first_row + row) * planes + plane) * out.words() +
                                tile.first_channel / 32;
      for (std::size_t word = 0; word * 32 < shift + tile.channels; ++word) {
        const std::size_t begin = word == 0 ? shift : 0;
        const std::size_t end = last ? 32 : std::min<std::size_t>(shift + tile.channels - 32 * word, 32);
        const auto own = std::uint32_t((std::uint64_t(1) << end) - (std::uint64_t(1) << begin));
        const std::uint64_t pair = std::uint64_t(word < words ? from[word] : 0) << 32 | (word > 0 ? from[word - 1] : 0);
        const auto bits = std::uint32_t(pair >> (32 - shift));
        __atomic_fetch_and(to + word, ~own, __ATOMIC_RELAXED);
        __atomic_fetch_or(to + word, bits & own, __ATOMIC_RELAXED);
      }
    }
}

// Lets the epilogue store to f32 or u8.
inline void store_elements(const Call& call, const Value& out, const Tile& tile, Epilogue& epilogue) {
  const std::size_t element = tile.first_row * out.channels() + tile.first_channel;
  epilogue.out = call.at<std::uint8_t>(out) + element * element_bytes(out.format);
  epilogue.out_stride = out.channels();
  epilogue.out_format = out.format;
  epilogue.out_range = out.range;
}

// Writes a tile of accumulators [rows][ldc], int32 or f32, in all formats. A tile that does not fill whole words of
// planes has at most kMaxRows rows and kMaxBlocks blocks of channels.
template <typename Sum>
void store_outputs(const Call& call, const Layer& layer, const Finish& finish, const Tile& tile, const Sum* sums,
                   std::size_t ldc) {
  Epilogue epilogue = make_epilogue(call, layer, finish, tile);
  for (const Value& out : finish.outputs) {
    epilogue.out_format = out.format;
    epilogue.out_range = out.range;
    if (!has_planes(out.format)) {
      store_elements(call, out, tile, epilogue);
    } else if (fills_words(tile, out)) {
      const std::size_t planes = bits_of(out.format);
      epilogue.out = call.at<std::uint32_t>(out) + tile.first_row * planes * out.words() + tile.first_channel / 32;
      epilogue.out_stride = planes * out.words();
      epilogue.out_plane = out.words();
    } else {
      store_shared_words(call, out, tile, epilogue, sums, ldc);
      continue;
    }
    store_tile(call.kernels, sums, ldc, tile, epilogue);
  }
}

}  // namespace bitplan
