// Copies of a few bytes, as convolutions gather them: no call, no branch on alignment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace bitplan {

inline void copy_bytes(std::uint8_t* to, const std::uint8_t* from, std::size_t n) {
  if (n >= 256) {
    std::memcpy(to, from, n);
  } else if (n >= 16) {
    std::size_t i = 0;
    for (; i + 16 <= n; i += 16) std::memcpy(to + i, from + i, 16);
    std::memcpy(to + n - 16, from + n - 16, 16);
  } else if (n >= 4) {
    std::size_t i = 0;
    for (; i + 4 <= n; i += 4) std::memcpy(to + i, from + i, 4);
    std::memcpy(to + n - 4, from + n - 4, 4);
  } else {
    for (std::size_t i = 0; i < n; ++i) to[i] = from[i];
  }
}

}  // namespace bitplan
