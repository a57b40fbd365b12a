#include "xor_network.h"

#include <algorithm>
#include <array>
#include <bit>
#include <vector>

#include "bytes.h"
#include "error.h"

namespace bitplan {
namespace {

constexpr unsigned kRegisterBits = 12;
constexpr std::size_t kStates = std::size_t(1) << kRegisterBits;
constexpr std::size_t kStepWeights = 4;
constexpr unsigned kMaskGates = 8;  // of a weight; one more makes its sign

// Output `counter` of SplitMix64 started at zero.
std::uint64_t splitmix64(std::uint64_t counter) {
  std::uint64_t mixed = (counter + 1) * 0x9E3779B97F4A7C15u;
  mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9u;
  mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EBu;
  return mixed ^ mixed >> 31;
}

// By content of the register: four codes of two bits.
std::array<std::uint8_t, kStates> network_table(std::uint64_t seed, unsigned density) {
  std::array<std::uint8_t, kStates> table{};
  std::array<std::uint64_t, kStepWeights*(kMaskGates + 1)> wiring;
  for (std::size_t gate = 0; gate < wiring.size(); ++gate) wiring[gate] = splitmix64(64 * seed + gate);
  for (std::uint64_t content = 0; content < kStates; ++content) {
    const auto output = [&](std::size_t gate) {
      return unsigned(std::popcount(wiring[gate] & content) + int(wiring[gate] >> kRegisterBits & 1)) & 1u;
    };
    for (std::size_t weight = 0; weight < kStepWeights; ++weight) {
      const std::size_t first = weight * (kMaskGates + 1);
      unsigned number = 0;
      for (unsigned bit = 0; bit < kMaskGates; ++bit) number |= output(first + bit) << bit;
      const unsigned code = number < density ? 2 * output(first + kMaskGates) : 1;
      table[content] = std::uint8_t(table[content] | code << 2 * weight);
    }
  }
  return table;
}

}  // namespace

std::size_t xor_code_bytes(std::size_t n, std::size_t rate) {
  const std::size_t moves = (n - 1) / kStepWeights;
  const std::size_t shifted = moves / 16 * rate + moves % 16 * rate / 16;
  return (shifted + kRegisterBits + 7) / 8;
}

void decode_xor(Bytes stored, std::size_t n, std::size_t rate, std::uint8_t* resident) {
  const unsigned seed = stored[0], density = stored[1];
  if (density == 0) throw FormatError("the density of its network is 0; expected 1 to 255");
  const std::array<std::uint8_t, kStates> table = network_table(seed, density);
  std::vector<std::uint8_t> code(stored.begin() + kXorHeaderBytes, stored.end());
  code.resize(code.size() + sizeof(std::uint32_t));  // whole words can be read at any bit of it
  const std::size_t steps = (n - 1) / kStepWeights + 1;
  for (std::size_t step = 0; step < steps; ++step) {
    const std::size_t first = step * rate / 16;
    const std::uint32_t word = load<std::uint32_t>(code.data() + first / 8);
    resident[step] = table[word >> first % 8 & (kStates - 1)];
  }
  if (const std::size_t rest = n % kStepWeights) resident[steps - 1] &= std::uint8_t((1u << 2 * rest) - 1);
}

}  // namespace bitplan
