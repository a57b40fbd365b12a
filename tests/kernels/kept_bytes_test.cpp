// Compares how levels add kept weights to products of bytes with a plain reference over random shapes; `--bench` times
// it on layers of residual networks, beside products of signs. Exit code 1 and one line per mismatch where something
// differs. See test_kernels_cpp.py for how it is built.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "../../kernels/cpp/kernel_table.h"

namespace {

using namespace bitplan;
using std::size_t;
template <class T>
using Vec = std::vector<T>;

std::mt19937 generator(20240501);
int failures = 0;

int draw(int low, int high) { return std::uniform_int_distribution<int>(low, high)(generator); }
size_t draw_size(size_t low, size_t high) { return std::uniform_int_distribution<size_t>(low, high)(generator); }

// Rows of runs; every run is a block of its own, so that a sanitizer sees each read beyond it.
struct Rows {
  size_t taps, run, rows;
  Vec<Vec<std::uint8_t>> runs;
  Vec<const std::uint8_t*> pointers;

  Rows(size_t taps_, size_t run_, size_t rows_, int least) : taps(taps_), run(run_), rows(rows_) {
    const size_t count = rows * taps / 2 + 1;  // rows share runs, as the pixels of a convolution do
    for (size_t i = 0; i < count; ++i) {
      runs.emplace_back(run);
      for (auto& byte : runs.back()) byte = static_cast<std::uint8_t>(draw(least, 255));
    }
    for (size_t i = 0; i < rows * taps; ++i) pointers.push_back(runs[draw_size(0, count - 1)].data());
  }

  size_t depth() const { return taps * run; }
  std::int32_t at(size_t p, size_t k) const { return pointers[p * taps + k / run][k % run]; }
};

// Every weight is kept with probability `density`; bits beyond those of k are set, as a layer's lists have them.
struct Lists {
  Vec<std::uint32_t> start{3}, place = Vec<std::uint32_t>(3, 0);  // the first entries belong to another panel
  Vec<std::uint8_t> magnitude = Vec<std::uint8_t>(3, 99);

  Lists(size_t depth, size_t channels, double density, int least) {
    std::bernoulli_distribution keep(density);
    for (size_t run = 0; run < 2 * channels; ++run) {
      for (size_t k = 0; k < depth; ++k)
        if (keep(generator)) {
          place.push_back(static_cast<std::uint32_t>(run % 128 << kColumnBits | k));
          magnitude.push_back(static_cast<std::uint8_t>(draw(least, 63)));
        }
      start.push_back(static_cast<std::uint32_t>(place.size()));
    }
  }
  KeptBytes from(size_t channel) const { return {start.data() + 2 * channel, place.data(), magnitude.data()}; }
};

void test(const KernelTable& k, size_t taps, size_t run, size_t rows, size_t channels, double density, bool extreme) {
  const Rows a(taps, run, rows, extreme ? 255 : 0);
  const Lists lists(a.depth(), channels, density, extreme ? 63 : 0);
  const size_t stride = column_stride(rows), ldc = channels + draw_size(0, 5);
  const int unit = draw(1, 63);
  Vec<std::uint8_t> columns(a.depth() * stride + 1, 5);
  k.write_columns(a.pointers.data(), taps, run, rows, columns.data());
  bool good = columns.back() == 5;
  for (size_t i = 0; i < a.depth(); ++i)
    for (size_t p = 0; p < rows; ++p) good = good && columns[i * stride + p] == a.at(p, i);

  Vec<std::int32_t> c(rows * ldc, 77);
  for (size_t p = 0; p < rows; ++p)
    for (size_t o = 0; o < channels; ++o) c[p * ldc + o] = draw(-200000, 200000);
  const Vec<std::int32_t> before = c;
  k.add_kept_bytes(columns.data(), rows, lists.from(0), unit, channels, c.data(), ldc);
  for (size_t p = 0; p < rows; ++p)
    for (size_t o = 0; o < ldc; ++o) {
      std::int32_t sum = before[p * ldc + o] * (o < channels ? unit : 1);
      for (size_t which = 2 * o; o < channels && which < 2 * o + 2; ++which)
        for (size_t i = lists.start[which]; i < lists.start[which + 1]; ++i) {
          const size_t place = lists.place[i] & ((1u << kColumnBits) - 1);
          sum += a.at(p, place) * lists.magnitude[i] * (which % 2 ? 1 : -1);
        }
      good = good && sum == c[p * ldc + o];
    }
  if (good || ++failures > 40) return;
  std::printf("MISMATCH %s %zu %zu %zu %zu %g %d\n", k.isa, taps, run, rows, channels, density, extreme);
}

void test_level(const KernelTable& k) {
  for (size_t rows = 1; rows <= 64; ++rows)
    test(k, draw_size(1, 3), draw_size(1, 70), rows, draw_size(1, 64), 0.05, false);
  for (size_t run = 1; run <= 70; ++run) test(k, draw_size(1, 9), run, draw_size(1, 64), draw_size(1, 20), 0.02, false);
  for (double density : {0.0, 0.02, 1.0})
    for (size_t channels : {1, 15, 16, 17, 64})
      for (size_t rows : {17, 49}) test(k, 9, 128, rows, channels, density, true);
  for (int i = 0; i < 5; ++i) test(k, 9, 128, 49, 3, 0.5, false);  // more than sums in 16 bits can take at once
}

// Times runs of several things in turns: the lower quartiles, seconds.
Vec<double> seconds(const Vec<std::function<void()>>& runs) {
  using Clock = std::chrono::steady_clock;
  Vec<Vec<double>> times(runs.size());
  for (const auto begin = Clock::now(); Clock::now() - begin < std::chrono::milliseconds(500) || times[0].size() < 5;)
    for (size_t i = 0; i < runs.size(); ++i) {
      const auto start = Clock::now();
      runs[i]();
      times[i].push_back(std::chrono::duration<double>(Clock::now() - start).count());
    }
  Vec<double> found;
  for (auto& of_run : times) {
    std::sort(of_run.begin(), of_run.end());
    found.push_back(of_run[of_run.size() / 4]);
  }
  return found;
}

// A 3x3 convolution in tiles of equal height and panels of 64 channels, 2 % kept.
void bench_layer(const KernelTable& k, size_t channels, size_t side) {
  const size_t pixels = side * side, tiles = (pixels + 63) / 64, depth = 9 * channels;
  const Rows a(9, channels, pixels, 0);
  const Lists lists(depth, channels, 0.01, 1);
  Vec<std::int8_t> panel(channels * depth, 1);
  Vec<std::uint8_t> columns(depth * kMaxRows);
  Vec<std::int32_t> c(64 * 64);
  const auto for_tiles = [&](auto body) {
    for (size_t t = 0; t < tiles; ++t) body(pixels * t / tiles, pixels * (t + 1) / tiles - pixels * t / tiles);
  };
  const auto products = [&] {
    for_tiles([&](size_t row, size_t rows) {
      for (size_t o = 0; o < channels; o += 64)
        k.conv_u8s8(&a.pointers[row * 9], 9, channels / 4, rows, &panel[o * depth], 4, 1, c.data(), 64);
    });
  };
  const auto transpose = [&] {
    for_tiles(
        [&](size_t row, size_t rows) { k.write_columns(&a.pointers[row * 9], 9, channels, rows, columns.data()); });
  };
  const auto add = [&] {
    for_tiles([&](size_t, size_t rows) {
      for (size_t o = 0; o < channels; o += 64)
        k.add_kept_bytes(columns.data(), rows, lists.from(o), 9, 64, c.data(), 64);
    });
  };
  const Vec<double> time = seconds({products, transpose, add});
  std::printf("%-11s %3zu@%-2zu signs %8.1f us, write_columns %.3f, add_kept_bytes %.3f of that\n", k.isa, channels,
              side, time[0] * 1e6, time[1] / time[0], time[2] / time[0]);
}

}  // namespace

int main(int argc, char** argv) {
  const bool bench = argc > 1 && std::strcmp(argv[1], "--bench") == 0;
  for (size_t level = 0; level < kLevelCount; ++level) {
    const KernelTable& k = *kLevels[level];
    if (!k.supported() || !k.add_kept_bytes) {
      std::printf("skipped %s: %s\n", k.isa, k.supported() ? "has no such kernel" : "not supported by this machine");
      continue;
    }
    if (bench)
      for (size_t side : {56, 28, 14, 7}) bench_layer(k, 64 * 56 / side, side);
    else
      test_level(k);
    std::printf("%s %s\n", bench ? "timed" : "tested", k.isa);
  }
  std::printf("%d mismatches\n", failures);
  return failures ? 1 : 0;
}
