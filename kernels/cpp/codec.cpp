#include "codec.h"

#include <bit>

#include "aligned_buffer.h"
#include "channel_numbers.h"
#include "even_levels.h"
#include "pruned.h"
#include "xor_network.h"

namespace bitplan {

std::size_t packed_size(std::size_t n, std::size_t bits) { return n / 8 * bits + (n % 8 * bits + 7) / 8; }

std::size_t stored_code_bytes(Codec codec, std::size_t n) {
  return codec == Codec::ternary ? (n + 4) / 5 : resident_code_bytes(codec, n);
}

std::size_t resident_code_bytes(Codec codec, std::size_t n) {
  switch (codec) {
    case Codec::float32:
      return 4 * n;
    case Codec::int8:
      return n;
    case Codec::int4:
      return packed_size(n, 4);
    case Codec::int3:
      return packed_size(n, 2) + packed_size(n, 1);
    case Codec::int2:
    case Codec::ternary:
      return packed_size(n, 2);
    case Codec::binary:
    case Codec::apb:
      break;
  }
  return packed_size(n, 1);
}

std::size_t elias_fano_shift(std::size_t k, std::size_t n) {
  return k == 0 || k > n ? 0 : std::size_t(std::bit_width(n / k)) - 1;
}

std::size_t elias_fano_bytes(std::size_t k, std::size_t n) {
  if (k == 0) return 0;
  const std::size_t shift = elias_fano_shift(k, n);
  return packed_size(k, shift) + packed_size(k + (n >> shift) + 1, 1);
}

std::size_t packed_layer_bytes(const CodecInfo& info, const LayerShape& shape, std::size_t number) {
  const Codec codec = info.codec;
  const bool floats = codec == Codec::float32, pruned = info.storage == Storage::pruned;
  std::size_t bytes = floats ? 4 * shape.out + (pruned ? kFloatUnitBytes : 0) : channel_number_bytes(info, shape.out);
  if (pruned)
    bytes += (floats ? 2 : 1) * number + mask_bytes(number, shape.count());
  else if (info.storage == Storage::xor_network)
    bytes += kXorHeaderBytes + xor_code_bytes(shape.count(), number);
  else if (info.storage == Storage::even)
    bytes += kEvenHeaderBytes + packed_size(shape.count(), number);
  else
    bytes += stored_code_bytes(codec, shape.count());
  if (codec == Codec::apb)
    bytes += kUnitLevelBytes + packed_size(number, info.kept_bits) + elias_fano_bytes(number, shape.count());
  return round_up(bytes, 8);
}

}  // namespace bitplan
