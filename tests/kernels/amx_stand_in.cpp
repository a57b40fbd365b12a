// The level amx on tiles of plain memory, for machines that have AVX-512 VNNI and no AMX.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

thread_local std::uint8_t tiles[8][16][64];
thread_local bool configured = false;

void need_configuration() {
  if (configured) return;
  std::puts("a tile is used outside tile_configure() and tile_release()");
  std::abort();
}

void tile_configure() {
  std::memset(tiles, 0, sizeof(tiles));
  configured = true;
}
void tile_release() {
  need_configuration();
  configured = false;
}

template <int tile>
void tile_zero() {
  need_configuration();
  std::memset(tiles[tile], 0, sizeof(tiles[tile]));
}
template <int tile>
void tile_load(const void* from, std::size_t stride) {
  need_configuration();
  for (std::size_t row = 0; row < 16; ++row)
    std::memcpy(tiles[tile][row], static_cast<const std::uint8_t*>(from) + row * stride, 64);
}
template <int tile>
void tile_store(void* to, std::size_t stride) {
  need_configuration();
  for (std::size_t row = 0; row < 16; ++row)
    std::memcpy(static_cast<std::uint8_t*>(to) + row * stride, tiles[tile][row], 64);
}
template <int sum, int a, int b>
void tile_dpbusd() {
  need_configuration();
  for (std::size_t row = 0; row < 16; ++row)
    for (std::size_t column = 0; column < 16; ++column) {
      std::int32_t total;
      std::memcpy(&total, &tiles[sum][row][4 * column], 4);
      for (std::size_t k = 0; k < 64; ++k)
        total += tiles[a][row][k] * static_cast<std::int8_t>(tiles[b][k / 4][4 * column + k % 4]);
      std::memcpy(&tiles[sum][row][4 * column], &total, 4);
    }
}

}  // namespace

#define BITPLAN_EMULATED_TILES
#define kAmxKernels kAmxStandIn
#include "../../kernels/cpp/isa/amx/amx.cpp"
