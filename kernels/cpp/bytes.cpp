#include "bytes.h"

#include <array>

namespace bitplan {
namespace {

// Eight tables: entry [j][b] is the CRC of byte b followed by j zero bytes, so that eight bytes take one step.
constexpr std::array<std::array<std::uint32_t, 256>, 8> make_tables() {
  std::array<std::array<std::uint32_t, 256>, 8> tables{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1 ? 0xEDB88320u : 0u) ^ (crc >> 1);
    tables[0][byte] = crc;
  }
  for (std::size_t j = 1; j < 8; ++j)
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const std::uint32_t crc = tables[j - 1][byte];
      tables[j][byte] = tables[0][crc & 255] ^ (crc >> 8);
    }
  return tables;
}

constexpr auto kTables = make_tables();

}  // namespace

std::uint32_t crc32(const std::uint8_t* data, std::size_t size) {
  std::uint32_t crc = 0xFFFFFFFFu;
  for (; size >= 8; data += 8, size -= 8) {
    const std::uint64_t word = load<std::uint64_t>(data) ^ crc;
    crc = 0;
    for (std::size_t j = 0; j < 8; ++j) crc ^= kTables[7 - j][(word >> (8 * j)) & 255];
  }
  for (; size > 0; ++data, --size) crc = kTables[0][(crc ^ *data) & 255] ^ (crc >> 8);
  return ~crc;
}

}  // namespace bitplan
