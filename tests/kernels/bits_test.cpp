// Compares the bit-serial kernels of every supported level with plain references over random shapes; `--bench` times
// them on layers of residual networks, beside products of bytes. Exit code 1 and one line per mismatch where something
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

std::uint32_t draw_bits(Fill fill) {
  return fill == Fill::random ? static_cast<std::uint32_t>(generator()) : fill == Fill::ones ? ~0u : 0u;
}

// Rows of runs: every run of every row is a block of its own, exactly as long as the contract says, so that a
// sanitizer sees each read beyond it.
struct Rows {
  size_t taps, words, rows;
  unsigned planes;
  Vec<Vec<std::uint32_t>> runs;
  Vec<const std::uint32_t*> pointers;

  Rows(size_t taps_, size_t words_, unsigned planes_, size_t rows_, Fill fill)
      : taps(taps_), words(words_), rows(rows_), planes(planes_) {
    const size_t count = rows * taps / 2 + 1;  // rows share runs, as the pixels of a convolution do
    for (size_t i = 0; i < count; ++i) {
      runs.emplace_back(planes * words);
      for (auto& word : runs.back()) word = draw_bits(fill);
    }
    for (size_t i = 0; i < rows * taps; ++i) pointers.push_back(runs[draw_size(0, count - 1)].data());
  }

  size_t depth() const { return 32 * taps * words; }
  std::int32_t code(size_t p, size_t k) const {
    const size_t channel = k % (32 * words);
    const std::uint32_t* run = pointers[p * taps + k / (32 * words)];
    std::int32_t code = 0;
    for (unsigned b = 0; b < planes; ++b)
      code += static_cast<std::int32_t>(run[b * words + channel / 32] >> (channel % 32) & 1) << b;
    return code;
  }
};

void test_conv_bits(const KernelTable& k, size_t taps, size_t words, unsigned planes, size_t rows, size_t blocks,
                    bool masked, Fill inputs, Fill weights) {
  const Rows a(taps, words, planes, rows, inputs);
  const size_t total = taps * words, n = 16 * blocks, ldc = n + draw_size(0, 5);
  Vec<std::uint32_t> signs(total * n), masks(masked ? total * n : 0);
  Vec<std::int32_t> offset(n), levels(n * 32 * total);
  for (size_t i = 0; i < signs.size(); ++i) {
    if (masked) masks[i] = static_cast<std::uint32_t>(generator());
    signs[i] = draw_bits(weights) & (masked ? masks[i] : ~0u);
    const size_t o = i / (16 * total) * 16 + i % 16, word = i / 16 % total;
    for (size_t bit = 0; bit < 32; ++bit) {
      const bool used = !masked || (masks[i] >> bit & 1);
      const int level = !used ? 0 : signs[i] >> bit & 1 ? 1 : -1;
      levels[o * 32 * total + 32 * word + bit] = level;
      offset[o] += ((1 << planes) - 1) * (used + level);
    }
  }
  for (auto& x : offset) x /= 2;
  Vec<std::int32_t> c(rows * ldc, 77);
  k.conv_bits(a.pointers.data(), taps, words, planes, rows,
              BitWeights{signs.data(), masked ? masks.data() : nullptr, offset.data()}, blocks, c.data(), ldc);
  bool good = true;
  Vec<std::int32_t> codes(a.depth());
  for (size_t p = 0; p < rows; ++p) {
    for (size_t i = 0; i < a.depth(); ++i) codes[i] = a.code(p, i);
    for (size_t o = 0; o < ldc; ++o) {
      std::int32_t sum = o < n ? 0 : 77;
      for (size_t i = 0; o < n && i < a.depth(); ++i) sum += codes[i] * levels[o * a.depth() + i];
      good = good && sum == c[p * ldc + o];
    }
  }
  expect(good, k, "conv_bits", {taps, words, planes, rows, blocks, masked});
}

void test_add_kept(const KernelTable& k, size_t taps, size_t words, unsigned planes, size_t rows, size_t channels,
                   double density, bool extreme) {
  const Rows a(taps, words, planes, rows, extreme ? Fill::ones : Fill::random);
  const int unit = draw(1, 63);
  const size_t ldc = channels + draw_size(0, 5);
  Vec<std::uint32_t> start{3}, position(3, 0);  // the first entries belong to another panel
  Vec<std::int16_t> residual(3, 99);
  std::bernoulli_distribution keep(density);
  for (size_t o = 0; o < channels; ++o) {
    for (size_t i = 0; i < a.depth(); ++i)
      if (keep(generator)) {
        position.push_back(static_cast<std::uint32_t>(i));
        residual.push_back(static_cast<std::int16_t>(extreme ? (o % 2 ? 126 : -126) : draw(-126, 126)));
      }
    start.push_back(static_cast<std::uint32_t>(position.size()));
  }
  Vec<std::uint64_t> masks(kept_scratch(taps * words, planes) + 1, 5);
  k.transpose_rows(a.pointers.data(), taps, words, planes, rows, masks.data());
  bool good = masks.back() == 5;
  for (unsigned b = 0; b < planes; ++b)
    for (size_t i = 0; i < a.depth(); ++i) {
      std::uint64_t mask = 0;
      for (size_t p = 0; p < rows; ++p) mask |= std::uint64_t{static_cast<unsigned>(a.code(p, i)) >> b & 1} << p;
      good = good && mask == masks[b * a.depth() + i];
    }
  expect(good, k, "transpose_rows", {taps, words, planes, rows});

  Vec<std::int32_t> c(rows * ldc, 77);
  for (size_t p = 0; p < rows; ++p)
    for (size_t o = 0; o < channels; ++o) c[p * ldc + o] = draw(-200000, 200000);
  const Vec<std::int32_t> before = c;
  k.add_kept(masks.data(), a.depth(), planes, rows, Kept{start.data(), position.data(), residual.data()}, unit,
             channels, c.data(), ldc);
  good = true;
  for (size_t p = 0; p < rows; ++p)
    for (size_t o = 0; o < ldc; ++o) {
      std::int32_t sum = before[p * ldc + o] * (o < channels ? unit : 1);
      for (size_t i = o < channels ? start[o] : 0; o < channels && i < start[o + 1]; ++i)
        sum += a.code(p, position[i]) * residual[i];
      good = good && sum == c[p * ldc + o];
    }
  expect(good, k, "add_kept", {taps, words, planes, rows, channels, static_cast<size_t>(density * 1000), extreme});
}

void test_unpack(const KernelTable& k, size_t n, unsigned planes) {
  const size_t words = words_of(n);
  Vec<std::uint32_t> codes(planes * words);
  Vec<std::uint8_t> expected(n), out(n + 1, 99);
  for (size_t i = 0; i < n; ++i) {
    expected[i] = static_cast<std::uint8_t>(draw(0, (1 << planes) - 1));
    for (unsigned b = 0; b < planes; ++b) codes[b * words + i / 32] |= (expected[i] >> b & 1u) << (i % 32);
  }
  k.unpack_codes(codes.data(), planes, n, out.data());
  expect(out[n] == 99 && std::equal(expected.begin(), expected.end(), out.begin()), k, "unpack_codes", {n, planes});
}

void test_level(const KernelTable& k) {
  for (unsigned planes : {1u, 2u, 4u}) {
    for (bool masked : {false, true}) {
      for (size_t rows = 0; rows <= 64; ++rows)
        test_conv_bits(k, draw_size(1, 3), draw_size(1, 3), planes, rows, draw_size(1, 4), masked, Fill::random,
                       Fill::random);
      for (size_t words = 1; words <= 40; ++words)
        test_conv_bits(k, draw_size(1, 9), words, planes, draw_size(1, 7), draw_size(1, 4), masked, Fill::random,
                       Fill::random);
      for (size_t taps = 1; taps <= 9; ++taps)
        for (size_t blocks = 0; blocks <= 5; ++blocks)
          test_conv_bits(k, taps, draw_size(1, 5), planes, draw_size(1, 9), blocks, masked, Fill::random, Fill::random);
      for (Fill inputs : {Fill::zeros, Fill::ones})
        for (Fill weights : {Fill::zeros, Fill::ones}) test_conv_bits(k, 9, 40, planes, 5, 2, masked, inputs, weights);
      test_conv_bits(k, 1, 784, planes, 1, 2, masked, Fill::ones, Fill::zeros);
    }
    for (size_t rows = 0; rows <= 64; ++rows)
      test_add_kept(k, draw_size(1, 3), draw_size(1, 3), planes, rows, draw_size(1, 64), 0.05, false);
    for (size_t words = 1; words <= 40; ++words)
      test_add_kept(k, draw_size(1, 9), words, planes, draw_size(1, 64), draw_size(1, 20), 0.01, false);
    for (double density : {0.0, 0.02, 1.0})
      for (size_t channels : {1, 15, 16, 17, 64}) test_add_kept(k, 9, 4, planes, 49, channels, density, true);
    for (size_t n = 1; n <= 200; ++n) test_unpack(k, n, planes);
    test_unpack(k, 1000, planes);
  }
}

// Seconds of one run: the lower quartile of many, at least 0.1 s in all.
double seconds(const std::function<void()>& run) {
  using Clock = std::chrono::steady_clock;
  run();
  Vec<double> times;
  for (const auto begin = Clock::now(); Clock::now() - begin < std::chrono::milliseconds(100) || times.size() < 5;) {
    const auto start = Clock::now();
    run();
    times.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 4), times.end());
  return times[times.size() / 4];
}

// A 3x3 convolution of `channels` channels, side x side pixels, padding 1, tiles of 64 rows, panels of 64 channels.
template <class T>
Vec<const T*> conv_pointers(const Vec<T>& pixels, const Vec<T>& padding, size_t side) {
  Vec<const T*> pointers;
  const int s = static_cast<int>(side);
  for (int y = 0; y < s; ++y)
    for (int x = 0; x < s; ++x)
      for (int dy = -1; dy <= 1; ++dy)
        for (int dx = -1; dx <= 1; ++dx) {
          const bool inside = y + dy >= 0 && y + dy < s && x + dx >= 0 && x + dx < s;
          pointers.push_back(inside ? pixels.data() + static_cast<size_t>((y + dy) * s + x + dx) * padding.size()
                                    : padding.data());
        }
  return pointers;
}

template <class Run>
void tiles(size_t pixels, size_t channels, Run run) {
  for (size_t row = 0; row < pixels; row += 64)
    for (size_t panel = 0; panel < channels / 64; ++panel) run(row, std::min<size_t>(64, pixels - row), panel);
}

void bench_layer(const KernelTable& k, size_t channels, size_t side) {
  const size_t words = channels / 32, pixels = side * side, total = 9 * words, depth = 32 * total;
  const double macs = static_cast<double>(pixels * channels * depth);
  Vec<std::int32_t> c(pixels * channels);
  const auto report = [&](const char* what, double time, double bytes) {
    std::printf("%-11s %3zu@%-2zu %-22s %7.1f GMAC/s %8.1f us  %.3f of u8 x s8\n", k.isa, channels, side, what,
                macs / time / 1e9, time * 1e6, time / bytes);
  };
  Vec<std::uint8_t> bytes(pixels * channels), zero(channels);
  Vec<std::int8_t> panel(channels * depth);
  for (auto& x : bytes) x = static_cast<std::uint8_t>(draw(0, 255));
  for (auto& x : panel) x = static_cast<std::int8_t>(draw(-127, 127));
  const auto byte_pointers = conv_pointers(bytes, zero, side);
  const double base = seconds([&] {
    tiles(pixels, channels, [&](size_t row, size_t rows, size_t p) {
      k.conv_u8s8(&byte_pointers[row * 9], 9, channels / 4, rows, &panel[p * 64 * depth], 4, 127,
                  &c[row * channels + p * 64], channels);
    });
  });
  report("u8 x s8", base, base);

  Vec<std::uint32_t> signs(channels * total), masks(channels * total);
  for (auto& x : masks) x = static_cast<std::uint32_t>(generator());
  for (size_t i = 0; i < signs.size(); ++i) signs[i] = static_cast<std::uint32_t>(generator()) & masks[i];
  const Vec<std::int32_t> offset(channels);
  for (unsigned planes : {1u, 2u, 4u}) {
    Vec<std::uint32_t> codes(pixels * planes * words), padding(planes * words);
    for (auto& x : codes) x = static_cast<std::uint32_t>(generator());
    const auto pointers = conv_pointers(codes, padding, side);
    for (bool masked : {false, true}) {
      const double time = seconds([&] {
        tiles(pixels, channels, [&](size_t row, size_t rows, size_t p) {
          const BitWeights weights{&signs[p * 64 * total], masked ? &masks[p * 64 * total] : nullptr, &offset[p * 64]};
          k.conv_bits(&pointers[row * 9], 9, words, planes, rows, weights, 4, &c[row * channels + p * 64], channels);
        });
      });
      char what[32];
      std::snprintf(what, sizeof what, "%s x u%u", masked ? "ternary" : "binary", planes);
      report(what, time, base);
    }

    Vec<std::uint32_t> start{0}, position;
    Vec<std::int16_t> residual;
    std::bernoulli_distribution keep(0.02);
    for (size_t o = 0; o < channels; ++o) {
      for (size_t i = 0; i < depth; ++i)
        if (keep(generator)) {
          position.push_back(static_cast<std::uint32_t>(i));
          residual.push_back(static_cast<std::int16_t>(draw(-126, 126)));
        }
      start.push_back(static_cast<std::uint32_t>(position.size()));
    }
    Vec<std::uint64_t> scratch(kept_scratch(total, planes));
    const auto kept_time = [&](bool add) {
      return seconds([&] {
        tiles(pixels, channels, [&](size_t row, size_t rows, size_t p) {
          if (p == 0) k.transpose_rows(&pointers[row * 9], 9, words, planes, rows, scratch.data());
          if (add)
            k.add_kept(scratch.data(), depth, planes, rows, Kept{&start[p * 64], position.data(), residual.data()}, 9,
                       64, &c[row * channels + p * 64], channels);
        });
      });
    };
    report("kept: transpose_rows", kept_time(false), base);
    report("kept: both, 2 %", kept_time(true), base);
  }
}

void bench_level(const KernelTable& k) {
  bench_layer(k, 64, 56);
  bench_layer(k, 128, 28);
  bench_layer(k, 256, 14);
  bench_layer(k, 512, 7);
  for (unsigned planes : {1u, 2u, 4u}) {
    const Vec<std::uint32_t> codes(planes * 128);
    Vec<std::uint8_t> out(4096);
    const double time = seconds([&] { k.unpack_codes(codes.data(), planes, out.size(), out.data()); });
    std::printf("%-11s unpack_codes u%u %.2f codes/ns\n", k.isa, planes, 4096 / time / 1e9);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bool bench = argc > 1 && std::strcmp(argv[1], "--bench") == 0;
  for (size_t level = 0; level < kLevelCount; ++level) {
    const KernelTable& k = *kLevels[level];
    if (!k.supported()) {
      std::printf("skipped %s: not supported by this machine\n", k.isa);
      continue;
    }
    if (argc > 2 && std::strcmp(argv[2], k.isa) != 0) continue;
    bench ? bench_level(k) : test_level(k);
    std::printf("%s %s\n", bench ? "timed" : "tested", k.isa);
  }
  std::printf("%d mismatches\n", failures);
  return failures ? 1 : 0;
}
