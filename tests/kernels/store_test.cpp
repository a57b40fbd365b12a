// The store to codes (u8, and planes of bits: u4, u2, u1) of every supported level against the rule of kernel_table.h;
// `--bench` times it. Exit code 1 and one line per mismatch where something differs. See test_kernels_cpp.py for how it
// is built.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "testing.h"

namespace {

using namespace bitplan;
using namespace bitplan::testing;

constexpr Format kPlaneFormats[] = {Format::u4, Format::u2, Format::u1};
constexpr std::uint32_t kUntouched = 0x5a5a5a5a;

unsigned code_of(float x, Format format, const Range& range) {
  if (format == Format::u1) return x > range.scale * (0.5f - range.zero_point);
  if (std::isnan(x)) return 0;
  const float top = static_cast<float>((1 << bits_of(format)) - 1);
  return static_cast<unsigned>(std::clamp(std::nearbyint(x * (1.0f / range.scale)) + range.zero_point, 0.0f, top));
}

Range draw_range(Format format) {
  const float scale = draw_float(0.05f, 0.8f);
  if (format == Format::u1) return {scale, 0.5f * static_cast<float>(draw(0, 2))};
  return {scale, static_cast<float>(draw(0, (1 << bits_of(format)) - 1))};
}

// The words of a run of n results that `code(i)` stands for.
template <class Code>
std::vector<std::uint32_t> planes_of(size_t n, Format format, Code code) {
  std::vector<std::uint32_t> words(bits_of(format) * words_of(n));
  for (size_t i = 0; i < n; ++i)
    for (unsigned b = 0; b < bits_of(format); ++b) words[b * words_of(n) + i / 32] |= (code(i) >> b & 1) << (i % 32);
  return words;
}

// A number that is often special: on a threshold, on a tie, not finite.
float draw_number(const Range& range) {
  switch (draw(0, 15)) {
    case 0:
      return range.scale * (0.5f - range.zero_point);
    case 1:
      return range.scale * (static_cast<float>(draw(-4, 16)) + 0.5f);
    case 2: {
      constexpr float kInfinity = std::numeric_limits<float>::infinity();
      const float special[] = {kInfinity, -kInfinity, std::nanf(""), 3e38f, -3e38f, 0.0f, -0.0f, 1e-42f};
      return special[draw(0, 7)];
    }
    default:
      return draw_float(-4, 4);
  }
}

void test_pack_codes(const KernelTable& k, size_t n, Format format) {
  const Range range = draw_range(format);
  std::vector<float> x(n);
  for (float& value : x) value = draw_number(range);
  const auto expected = planes_of(n, format, [&](size_t i) { return code_of(x[i], format, range); });
  std::vector<std::uint32_t> codes(expected.size() + 1, kUntouched);
  k.pack_codes(x.data(), n, format, range, codes.data());
  expect(std::equal(expected.begin(), expected.end(), codes.begin()) && codes.back() == kUntouched, k,
         "pack_codes of " + std::to_string(n) + " to " + std::to_string(bits_of(format)) + " bits");
}

// One epilogue with a random mixture of what it can do. The f32 results of the same level, which kernels_test.cpp
// compares with a reference, are what the codes must come from; and the codes must be those of the portable level.
template <class C, class Store>
void test_store(const KernelTable& k, Store store, size_t rows, size_t n, Format format, ActivationKind activation) {
  const size_t ldc = n + static_cast<size_t>(draw(0, 9)), planes = bits_of(format), words = words_of(n);
  const Range range = draw_range(format);
  std::vector<C> c(rows * ldc);
  std::vector<float> multiplier(n), bias(n), residual(rows * n);
  std::vector<std::uint8_t> residual_codes(rows * n);
  for (C& sum : c)
    sum = std::is_same_v<C, float> ? static_cast<C>(draw_number(range)) : static_cast<C>(draw(-900, 900));
  for (float& x : multiplier) x = draw_float(-0.01f, 0.01f);
  for (float& x : bias) x = draw_number(range);
  for (float& x : residual) x = draw_float(-1, 1);
  for (auto& q : residual_codes) q = static_cast<std::uint8_t>(draw(0, 255));

  Epilogue e;
  if (draw(0, 3)) e.multiplier = multiplier.data();
  if (draw(0, 3)) e.bias = bias.data();
  const int kind = draw(0, 2);
  if (kind > 0) e.residual = kind == 1 ? static_cast<const void*>(residual.data()) : residual_codes.data();
  e.residual_format = kind == 2 ? Format::u8 : Format::f32;
  e.residual_range = {0.01f, 100};
  e.residual_stride = n;
  e.activation = {activation, -0.5f, 2};

  std::vector<float> y(rows * n);
  e.out = y.data();
  e.out_stride = n;
  (k.*store)(c.data(), ldc, rows, n, e);

  // Rows of more words than the tile writes, and planes further apart.
  const size_t plane = words + static_cast<size_t>(draw(0, 2)),
               stride = planes * plane + static_cast<size_t>(draw(0, 2));
  const auto run = [&](const KernelTable& level) {
    std::vector<std::uint32_t> out(rows * stride, kUntouched);
    e.out = out.data();
    e.out_stride = stride;
    e.out_plane = plane;
    e.out_format = format;
    e.out_range = range;
    (level.*store)(c.data(), ldc, rows, n, e);
    return out;
  };
  std::vector<std::uint32_t> expected(rows * stride, kUntouched);
  for (size_t p = 0; p < rows; ++p) {
    const auto row = planes_of(n, format, [&](size_t o) { return code_of(y[p * n + o], format, range); });
    for (size_t b = 0; b < planes; ++b)
      std::copy_n(row.begin() + static_cast<std::ptrdiff_t>(b * words), words,
                  expected.begin() + static_cast<std::ptrdiff_t>(p * stride + b * plane));
  }
  const std::string what = "store of " + std::to_string(rows) + " x " + std::to_string(n) + " to " +
                           std::to_string(planes) + " bits, activation " +
                           std::to_string(static_cast<int>(activation)) + ", residual " + std::to_string(kind);
  const auto found = run(k);
  expect(found == expected, k, what);
  expect(found == run(*kLevels[kLevelCount - 1]), k, what + ", as at the portable level");
}

// Codes of 8 bits must be those of the f32 results, whatever the order in which activation and quantisation clamp. NaN
// becomes the lowest code that a clamp allows, else 0.
template <class C, class Store>
void test_store_bytes(const KernelTable& k, Store store, size_t rows, size_t n, const Activation& activation) {
  const size_t ldc = n + static_cast<size_t>(draw(0, 9)), stride = n + static_cast<size_t>(draw(0, 9));
  const float scale = draw(0, 7) ? draw_float(0.01f, 0.4f) : 1e-40f;
  const Range range{scale, static_cast<float>(draw(0, 2) ? draw(0, 255) : 0)};
  std::vector<C> c(rows * ldc);
  std::vector<float> multiplier(n), bias(n), y(rows * n);
  std::vector<std::uint8_t> residual(rows * n);
  for (C& sum : c)
    sum = std::is_same_v<C, float> ? static_cast<C>(draw_number(range)) : static_cast<C>(draw(-900, 900));
  for (float& x : multiplier) x = draw_float(-0.01f, 0.01f) * (draw(0, 9) ? 1 : 1e12f);
  for (float& x : bias) x = draw_number(range);
  for (auto& q : residual) q = static_cast<std::uint8_t>(draw(0, 255));
  Epilogue e;
  e.multiplier = multiplier.data();
  e.bias = bias.data();
  if (draw(0, 1)) e.residual = residual.data();
  e.residual_format = Format::u8;
  e.residual_range = {0.01f, 100};
  e.residual_stride = n;
  e.activation = activation;
  e.out = y.data();
  e.out_stride = n;
  (k.*store)(c.data(), ldc, rows, n, e);
  e.out_format = Format::u8;
  e.out_range = range;
  e.out_stride = stride;
  const auto run = [&](const KernelTable& level) {
    std::vector<std::uint8_t> out(rows * stride, 0x5a);
    e.out = out.data();
    (level.*store)(c.data(), ldc, rows, n, e);
    return out;
  };
  const bool clamps = activation.kind == ActivationKind::clamp;
  const float lowest = clamps ? std::min(activation.low, activation.high) : 0;
  std::vector<std::uint8_t> expected(rows * stride, 0x5a);
  for (size_t p = 0; p < rows; ++p)
    for (size_t o = 0; o < n; ++o) {
      const float result = y[p * n + o];
      const unsigned code =
          std::isnan(result) && !clamps ? 0 : code_of(std::isnan(result) ? lowest : result, Format::u8, range);
      expected[p * stride + o] = static_cast<std::uint8_t>(code);
    }
  const std::string what = "store of " + std::to_string(rows) + " x " + std::to_string(n) + " to bytes, activation " +
                           std::to_string(static_cast<int>(activation.kind)) + " from " +
                           std::to_string(activation.low) + " to " + std::to_string(activation.high);
  const auto found = run(k);
  expect(found == expected, k, what);
  expect(found == run(*kLevels[kLevelCount - 1]), k, what + ", as at the portable level");
}

void test_level(const KernelTable& k) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const Activation activations[] = {{ActivationKind::identity, 0, 0},      {ActivationKind::clamp, 0, 6},
                                    {ActivationKind::clamp, 0, kInfinity}, {ActivationKind::clamp, -1, 1},
                                    {ActivationKind::clamp, 0.7f, 0.9f},   {ActivationKind::clamp, 2, -1},
                                    {ActivationKind::sigmoid, 0, 0}};
  for (const Activation& activation : activations)
    for (int trial = 0; trial < 60; ++trial) {
      const auto rows = static_cast<size_t>(draw(1, 20)), n = static_cast<size_t>(draw(1, 100));
      test_store_bytes<std::int32_t>(k, &KernelTable::store_i32, rows, n, activation);
      test_store_bytes<float>(k, &KernelTable::store_f32, rows, n, activation);
    }
  for (const Format format : kPlaneFormats) {
    for (size_t n = 0; n <= 130; ++n) test_pack_codes(k, n, format);
    for (int kind = 0; kind <= static_cast<int>(ActivationKind::hard_sigmoid); ++kind)
      for (int trial = 0; trial < 60; ++trial) {
        const auto rows = static_cast<size_t>(trial < 3 ? 64 * trial / 2 : draw(1, 20));
        const auto n = static_cast<size_t>(trial < 3 ? 32 * (trial + 1) : draw(1, 140));
        const auto activation = static_cast<ActivationKind>(kind);
        test_store<std::int32_t>(k, &KernelTable::store_i32, rows, n, format, activation);
        test_store<float>(k, &KernelTable::store_f32, rows, n, format, activation);
      }
  }
  std::printf("tested %s\n", k.isa);
}

// Elements per nanosecond of a tile of 64 x 64, in each format.
void bench_level(const KernelTable& k) {
  constexpr size_t kRows = 64, kChannels = 64, kRuns = 2000;
  std::vector<std::int32_t> c(kRows * kChannels);
  for (auto& sum : c) sum = draw(-900, 900);
  const std::vector<float> multiplier(kChannels, 0.01f), bias(kChannels, 0.1f);
  std::vector<float> out(kRows * kChannels);
  for (const Format format : {Format::f32, Format::u8, Format::u4, Format::u2, Format::u1}) {
    Epilogue e;
    e.multiplier = multiplier.data();
    e.bias = bias.data();
    e.activation = {ActivationKind::clamp, 0, 6};
    e.out = out.data();
    e.out_format = format;
    e.out_range = {0.3f, 0};
    e.out_plane = words_of(kChannels);
    e.out_stride = has_planes(format) ? bits_of(format) * words_of(kChannels) : kChannels;
    double best = 1e9;
    for (int trial = 0; trial < 20; ++trial) {
      const auto start = std::chrono::steady_clock::now();
      for (size_t i = 0; i < kRuns; ++i) k.store_i32(c.data(), kChannels, kRows, kChannels, e);
      best = std::min(best, std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count());
    }
    constexpr const char* kNames[] = {"", "f32", "u8", "u4", "u2", "u1"};
    std::printf("%-12s store_i32 to %-4s %6.2f elements/ns\n", k.isa, kNames[static_cast<int>(format)],
                static_cast<double>(kRuns * kRows * kChannels) / best);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bool bench = argc > 1 && std::strcmp(argv[1], "--bench") == 0;
  for (size_t i = 0; i < kLevelCount; ++i)
    if (kLevels[i]->supported()) bench ? bench_level(*kLevels[i]) : test_level(*kLevels[i]);
  if (!bench) std::printf("%d mismatches\n", failures);
  return failures != 0;
}
