// Bits of packed bytes, from the least significant end of each.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace bitplan {

inline bool bit_at(const std::uint8_t* data, std::size_t at) { return data[at / 8] >> (at % 8) & 1; }

// `count` bits from bit `at`, the first of them the least significant; at most 64.
inline std::uint64_t bits_at(const std::uint8_t* data, std::size_t at, std::size_t count) {
  std::uint64_t found = 0;
  for (std::size_t done = 0; done < count;) {
    const std::size_t shift = (at + done) % 8, taken = std::min(8 - shift, count - done);
    found |= std::uint64_t(data[(at + done) / 8] >> shift & ((1u << taken) - 1)) << done;
    done += taken;
  }
  return found;
}

}  // namespace bitplan
