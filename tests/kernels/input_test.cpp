// What an image becomes at the network's input, at every supported level, against plain loops. Exit code 1 and one line
// per mismatch where something differs. See test_kernels_cpp.py for how it is built.
#include <cstdio>
#include <string>
#include <vector>

#include "testing.h"

namespace {

using namespace bitplan;
using namespace bitplan::testing;

constexpr size_t kBehind = 70;  // elements that must stay as they are

template <class T>
std::vector<T> draw_many(size_t n) {
  std::vector<T> values(n);
  for (T& value : values) value = static_cast<T>(draw(0, 255));
  return values;
}

// `kernel(out)` must write map(channel, element) of every pixel, and nothing else.
template <class T, class U, class Kernel, class Map>
void test_interleaved(const KernelTable& k, const std::vector<T>& in, size_t plane, size_t n, size_t channels,
                      Kernel kernel, Map map, const std::string& name) {
  std::vector<U> expected(n * channels + kBehind, U{77}), found = expected;
  for (size_t x = 0; x < n; ++x)
    for (size_t ch = 0; ch < channels; ++ch) expected[x * channels + ch] = map(ch, in[ch * plane + x]);
  kernel(found.data());
  expect(found == expected, k, name + " of " + std::to_string(n) + " x " + std::to_string(channels));
}

void test_level(const KernelTable& k) {
  for (size_t channels = 1; channels <= 5; ++channels)
    for (size_t n = 0; n <= 200; n += n < 70 ? 1 : 13) {
      const size_t plane = n + static_cast<size_t>(draw(0, 5));
      const auto bytes = draw_many<std::uint8_t>(channels * plane);
      const auto floats = draw_many<float>(channels * plane), float_tables = draw_many<float>(256 * channels);
      const auto tables = draw_many<std::uint8_t>(256 * channels);
      test_interleaved<std::uint8_t, std::uint8_t>(
          k, bytes, plane, n, channels,
          [&](std::uint8_t* out) { k.look_up_u8(tables.data(), bytes.data(), plane, n, channels, out); },
          [&](size_t ch, std::uint8_t x) { return tables[256 * ch + x]; }, "look_up_u8");
      test_interleaved<std::uint8_t, float>(
          k, bytes, plane, n, channels,
          [&](float* out) { k.look_up_f32(float_tables.data(), bytes.data(), plane, n, channels, out); },
          [&](size_t ch, std::uint8_t x) { return float_tables[256 * ch + x]; }, "look_up_f32");
      test_interleaved<float, float>(
          k, floats, plane, n, channels, [&](float* out) { k.interleave_f32(floats.data(), plane, n, channels, out); },
          [&](size_t, float x) { return x; }, "interleave_f32");
      test_interleaved<float, float>(
          k, floats, n, n, 1, [&](float* out) { k.normalise(floats.data(), n, 123.7f, 58.4f, out); },
          [&](size_t, float x) { return (x - 123.7f) / 58.4f; }, "normalise");
    }
  std::printf("tested %s\n", k.isa);
}

}  // namespace

int main() {
  for (size_t i = 0; i < kLevelCount; ++i)
    if (kLevels[i]->supported()) test_level(*kLevels[i]);
  std::printf("%d mismatches\n", failures);
  return failures != 0;
}
