// Compares the look-up kernels of every supported level with plain references over random shapes; `--bench` times them
// on layers of residual networks, beside products of bytes. Exit code 1 and one line per mismatch where something
// differs. See test_kernels_cpp.py for how it is built.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "testing.h"

namespace {

using namespace bitplan;
using namespace bitplan::testing;

enum class Fill { random, zeros, ones };

template <class T>
Vec<T> draw_bits(size_t n, Fill fill) {
  Vec<T> v(n);
  for (T& x : v) x = static_cast<T>(fill == Fill::random ? generator() : fill == Fill::ones ? ~0u : 0u);
  return v;
}

// Sharp bounds for sanitizers: every run and its tables are blocks of their own, exactly as long as the contract says.
struct Run {
  size_t words;
  Vec<std::uint32_t> planes;
  Vec<std::uint8_t> tables;

  Run(const KernelTable& k, size_t words_, unsigned bits, Fill fill)
      : words(words_), planes(draw_bits<std::uint32_t>(bits * words, fill)), tables(table_bytes(words), 77) {
    k.build_tables(planes.data(), words, bits, tables.data());
  }
  std::int32_t code(size_t channel) const {
    std::int32_t code = 0;
    for (size_t w = channel / 32, b = 0; w < planes.size(); w += words, ++b)
      code += static_cast<std::int32_t>(planes[w] >> (channel % 32) & 1) << b;
    return code;
  }
};

void test_build_tables(const KernelTable& k, size_t words, unsigned planes, Fill fill) {
  const Run run(k, words, planes, fill);
  std::int32_t total = 0, stored;
  bool good = true;
  for (size_t g = 0; g < 8 * words; ++g) {
    for (size_t j = 0; j < 16; ++j) {
      std::int32_t sum = 0;
      for (size_t i = 0; i < 4; ++i) sum += j >> i & 1 ? run.code(4 * g + i) : 0;
      good = good && run.tables[16 * g + j] == sum;
    }
    total += run.tables[16 * g + 15];
  }
  std::memcpy(&stored, run.tables.data() + 128 * words, sizeof(stored));
  expect(good && stored == total, k, "build_tables", {words, planes, static_cast<size_t>(fill)});
}

// One of +1 and -1 for weight i of group g of channel o, units counted over [tap][word].
std::int32_t sign(const Vec<std::uint8_t>& signs, size_t units, size_t o, size_t unit, size_t g, size_t i) {
  const size_t byte = ((o / 32 * units + unit) * 2 + o % 32 / 16) * 64 + g % 4 * 16 + o % 16;
  return signs[byte] >> (g / 4 * 4 + i) & 1 ? 1 : -1;
}

void test_conv_lookup(const KernelTable& k, size_t taps, size_t words, unsigned planes, size_t rows, size_t blocks,
                      bool ternary, Fill inputs, Fill weights) {
  const size_t units = taps * words, n = 32 * blocks, ldc = n + draw_size(0, 5);
  Vec<Run> runs;  // rows share runs, as the pixels of a convolution do
  for (size_t i = 0; i <= rows * taps / 2; ++i) runs.emplace_back(k, words, planes, inputs);
  Vec<const Run*> of(rows * taps);
  Vec<const std::uint8_t*> pointers(rows * taps);
  for (size_t i = 0; i < rows * taps; ++i) {
    of[i] = &runs[draw_size(0, runs.size() - 1)];
    pointers[i] = of[i]->tables.data();
  }
  const auto signs = draw_bits<std::uint8_t>(units * blocks * 128, weights),
             second = draw_bits<std::uint8_t>(units * blocks * 128, weights);
  Vec<std::int32_t> c(rows * ldc, 77);
  k.conv_lookup(pointers.data(), taps, words, planes, rows, {signs.data(), ternary ? second.data() : nullptr}, blocks,
                c.data(), ldc);
  bool good = true;
  for (size_t p = 0; p < rows; ++p)
    for (size_t o = 0; o < ldc; ++o) {
      std::int32_t sum = o < n ? 0 : 77;
      for (size_t unit = 0; o < n && unit < units; ++unit)
        for (size_t channel = 0; channel < 32; ++channel) {
          const size_t g = channel / 4, i = channel % 4;
          std::int32_t level = sign(signs, units, o, unit, g, i);
          if (ternary) level = (level + sign(second, units, o, unit, g, i)) / 2;
          sum += level * of[p * taps + unit / words]->code(unit % words * 32 + channel);
        }
      good = good && c[p * ldc + o] == sum;
    }
  expect(good, k, "conv_lookup",
         {taps, words, planes, rows, blocks, ternary, static_cast<size_t>(inputs), static_cast<size_t>(weights)});
}

void test(const KernelTable& k) {
  for (unsigned planes : {1u, 2u, 4u}) {
    for (size_t words = 1; words <= 25; ++words)
      for (Fill fill : {Fill::random, Fill::zeros, Fill::ones}) test_build_tables(k, words, planes, fill);
    for (bool ternary : {false, true}) {
      for (int i = 0; i < 40; ++i)
        test_conv_lookup(k, draw_size(1, 9), draw_size(1, 6), planes, draw_size(0, 20), draw_size(1, 3), ternary,
                         Fill::random, Fill::random);
      for (size_t rows = 0; rows <= kMaxRows; ++rows)
        test_conv_lookup(k, draw_size(1, 3), draw_size(1, 3), planes, rows, 1, ternary, Fill::random, Fill::random);
      // The largest sums, along more units than any narrow sum can hold.
      for (Fill weights : {Fill::random, Fill::zeros, Fill::ones})
        test_conv_lookup(k, 9, 25, planes, 5, 1, ternary, Fill::ones, weights);
      test_conv_lookup(k, 1, 200, planes, 1, 2, ternary, Fill::ones, Fill::ones);
    }
  }
}

// The least time of several interleaved candidates, in seconds.
Vec<double> least_times(const Vec<std::function<void()>>& candidates, int rounds) {
  using Clock = std::chrono::steady_clock;
  Vec<double> least(candidates.size(), 1e9);
  for (int round = 0; round < rounds; ++round)
    for (size_t i = 0; i < candidates.size(); ++i) {
      const auto begin = Clock::now();
      candidates[i]();
      least[i] = std::min(least[i], std::chrono::duration<double>(Clock::now() - begin).count());
    }
  return least;
}

template <class T>
T* aligned(Vec<T>& v) {  // of a vector with 64 bytes to spare
  return reinterpret_cast<T*>((reinterpret_cast<std::uintptr_t>(v.data()) + 63) / 64 * 64);
}

// A 3 x 3 convolution with padding 1 whose weights have 64 channels per call, rows in equal tiles.
void bench(const KernelTable& k, size_t side, size_t channels) {
  const size_t taps = 9, words = channels / 32, units = taps * words, pixels = side * side, stride = table_bytes(words);
  const size_t tiles = (pixels + kMaxRows - 1) / kMaxRows;
  Vec<std::uint8_t> table_store((pixels + 1) * stride + 64), signs_store(channels * units * 16 / 4 + 64), second(1);
  std::uint8_t* tables = aligned(table_store);
  const auto planes = draw_bits<std::uint32_t>((pixels + 1) * words * 4, Fill::random);
  std::uint8_t* signs = aligned(signs_store);
  for (size_t i = 0; i < channels * units * 4; ++i) signs[i] = static_cast<std::uint8_t>(generator());
  Vec<const std::uint8_t*> pointers(pixels * taps);
  for (size_t p = 0; p < pixels; ++p)
    for (size_t t = 0; t < taps; ++t) {
      const size_t y = p / side + t / 3, x = p % side + t % 3;  // plus 1
      const bool inside = y > 0 && x > 0 && y <= side && x <= side;
      pointers[p * taps + t] = tables + (inside ? (y - 1) * side + x - 1 : pixels) * stride;
    }
  Vec<std::int32_t> c(kMaxRows * 64);
  const auto for_tiles = [&](const std::function<void(size_t, size_t, size_t)>& body) {
    for (size_t n = 0; n < channels; n += 64)
      for (size_t i = 0, row = 0; i < tiles; ++i) {
        const size_t count = pixels / tiles + (i < pixels % tiles);
        body(n, row, count);
        row += count;
      }
  };
  const auto build = [&](unsigned bits) {
    for (size_t p = 0; p <= pixels; ++p) k.build_tables(&planes[p * words * bits], words, bits, tables + p * stride);
  };
  const auto multiply = [&](unsigned bits, bool ternary) {
    for_tiles([&](size_t n, size_t row, size_t count) {
      const std::uint8_t* w = signs + n * units * 4;
      k.conv_lookup(&pointers[row * taps], taps, words, bits, count, {w, ternary ? w : nullptr}, 2, c.data(), 64);
    });
  };
  // Rows of bytes as they would come from an image to columns, without the time that this takes.
  Vec<std::uint8_t> a(kMaxRows * taps * channels, 3);
  Vec<std::int8_t> panel(64 * taps * channels, 1);
  Vec<std::function<void()>> candidates;
  for (int level : {127, 63})
    candidates.push_back([&, level] {
      for_tiles([&](size_t, size_t, size_t count) {
        k.gemm_u8s8(a.data(), taps * channels, count, panel.data(), taps * channels / 4, 4, level, c.data(), 64);
      });
    });
  for (unsigned bits : {1u, 2u, 4u}) {
    candidates.push_back([&, bits] { build(bits); });
    candidates.push_back([&, bits] { multiply(bits, false); });
    candidates.push_back([&, bits] { multiply(bits, true); });
  }
  const auto time = least_times(candidates, 40);
  const double macs = 1e-9 * static_cast<double>(pixels * channels * taps * channels);
  std::printf("%-11s %3zu@%-2zu GMAC/s: int8 %4.0f, levels <= 63 %4.0f", k.isa, channels, side, macs / time[0],
              macs / time[1]);
  for (size_t i = 0; i < 3; ++i) {
    const double *t = &time[2 + 3 * i], both = t[0] + t[1];
    std::printf("; 1x%d %4.0f (%.2f of int8, tables %2.0f %%), ternary %4.0f", 1 << i, macs / both, both / time[0],
                100 * t[0] / t[1], macs / (t[0] + t[2]));
  }
  std::printf("\n");
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  for (size_t i = 0; i < kLevelCount; ++i) {
    const KernelTable& k = *kLevels[i];
    if (!k.supported()) continue;
    if (mode == "--bench") {
      for (const auto& [channels, side] : {std::pair<size_t, size_t>{64, 56}, {128, 28}, {256, 14}, {512, 7}})
        bench(k, side, channels);
    } else {
      test(k);
      std::printf("tested %s\n", k.isa);
    }
  }
  if (mode != "--bench") std::printf("%d mismatches\n", failures);
  return failures != 0;
}
