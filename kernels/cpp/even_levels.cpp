#include "even_levels.h"

#include "bits.h"
#include "require.h"

namespace bitplan {

void read_even_levels(Bytes stored, std::size_t bits, std::size_t n, std::int8_t* levels) {
  const int lowest = std::int8_t(stored[0]), step = stored[1], codes = 1 << bits;
  const int highest = lowest + step * (codes - 1);
  require(lowest >= -127 && step >= 1 && highest <= 127,
          text("its levels of ", bits, " bits go from ", lowest, " in steps of ", step, " to ", highest,
               "; expected -127 to 127, in steps of at least 1"));
  const std::uint8_t* const packed = stored.data() + kEvenHeaderBytes;
  for (std::size_t i = 0; i < n; ++i) levels[i] = std::int8_t(lowest + step * int(bits_at(packed, i * bits, bits)));
}

}  // namespace bitplan
