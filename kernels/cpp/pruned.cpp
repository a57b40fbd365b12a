#include "pruned.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "bits.h"
#include "bytes.h"
#include "codec.h"
#include "kept.h"
#include "require.h"

namespace bitplan {
namespace {

std::size_t bitmap_bytes(std::size_t n) { return n / 8 + (n % 8 != 0); }

// Positions in the stream of the kept weights, ascending.
std::vector<std::uint64_t> read_mask(Bytes data, std::size_t kept, std::size_t n) {
  if (elias_fano_bytes(kept, n) < bitmap_bytes(n)) return read_elias_fano(data, kept, n);
  std::vector<std::uint64_t> positions;
  positions.reserve(kept);
  std::size_t marked = 0;
  for (std::size_t bit = 0; bit < 8 * data.size(); ++bit) {
    if (!bit_at(data.data(), bit)) continue;
    if (++marked <= kept && bit < n) positions.push_back(bit);
  }
  require(marked == kept && positions.size() == kept,
          text("its mask of ", n, " weights marks ", marked, " of its bits; ", kept, " were announced"));
  return positions;
}

}  // namespace

std::size_t mask_bytes(std::size_t kept, std::size_t n) { return std::min(bitmap_bytes(n), elias_fano_bytes(kept, n)); }

void spread_levels(Bytes stored, std::size_t kept, std::size_t n, std::int8_t* levels) {
  std::memset(levels, 0, n);
  const std::uint8_t* value = stored.data();
  for (const std::uint64_t position : read_mask(stored.subspan(kept, mask_bytes(kept, n)), kept, n))
    levels[position] = std::int8_t(*value++);
}

AlignedBuffer dense_floats(Bytes packed, std::size_t out, std::size_t kept, std::size_t n) {
  AlignedBuffer dense(4 * (out + n));
  std::memcpy(dense.data(), packed.data() + kFloatUnitBytes, 4 * out);
  float* const weights = dense.as<float>() + out;
  std::fill_n(weights, n, 0.0f);
  const float unit = load<float>(packed.data());
  const Bytes ratios = packed.subspan(kFloatUnitBytes + 4 * out);
  const std::uint8_t* ratio = ratios.data();
  for (const std::uint64_t position : read_mask(ratios.subspan(2 * kept, mask_bytes(kept, n)), kept, n)) {
    weights[position] = unit * half_to_float(load<std::uint16_t>(ratio));
    ratio += 2;
  }
  return dense;
}

}  // namespace bitplan
