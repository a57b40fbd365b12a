// Compares every function of every supported level with a plain reference over random shapes; `--bench` times them.
// Exit code 1 and one line per mismatch where something differs. See test_kernels_cpp.py for how it is built.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
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
float draw_float(float low, float high) { return std::uniform_real_distribution<float>(low, high)(generator); }

template <class T>
Vec<T> draw_ints(size_t n, int low, int high) {
  Vec<T> v(n);
  for (T& x : v) x = static_cast<T>(draw(low, high));
  return v;
}
Vec<float> draw_floats(size_t n, float low = -2, float high = 2) {
  Vec<float> v(n);
  for (float& x : v) x = draw_float(low, high);
  return v;
}

void expect(bool good, const KernelTable& k, const std::string& what) {
  if (good) return;
  if (++failures <= 40) std::printf("MISMATCH %s %s\n", k.isa, what.c_str());
}

// |a - b| <= tolerance * max(1, |b|); two NaNs agree.
bool close(float a, float b, float tolerance) {
  if (std::isnan(b)) return std::isnan(a);
  if (std::isinf(b)) return a == b;
  return std::fabs(a - b) <= tolerance * std::max(1.0f, std::fabs(b));
}

std::string shape(std::initializer_list<size_t> sizes) {
  std::string text;
  for (size_t s : sizes) text += " " + std::to_string(s);
  return text;
}

// Codes of `bits` bits from the least significant end, as bitplan/encodings/bits.py packs them.
void put_bits(std::uint8_t* bytes, size_t i, unsigned bits, unsigned code) {
  for (unsigned b = 0; b < bits; ++b)
    if (code >> b & 1) bytes[(i * bits + b) / 8] |= static_cast<std::uint8_t>(1u << ((i * bits + b) % 8));
}

void test_gemm_u8s8(const KernelTable& k, size_t rows, size_t depth, size_t blocks, bool wide, bool extreme) {
  const size_t steps = (depth + 3) / 4, n = blocks * 16, lda = depth + static_cast<size_t>(draw(0, 9));
  const int top = wide ? 127 : 63;
  // What lies behind K of the last row must be readable, nothing more.
  Vec<std::uint8_t> a(rows == 0 ? 0 : (rows - 1) * lda + 4 * steps);
  for (auto& x : a) x = static_cast<std::uint8_t>(extreme ? 255 : draw(0, 255));
  Vec<std::int8_t> panel(blocks * steps * 64);
  Vec<std::int8_t> weights(n * depth);
  for (size_t o = 0; o < n; ++o)
    for (size_t i = 0; i < depth; ++i) {
      const int level = extreme ? (o % 3 == 0 ? (wide ? -128 : -63) : top) : draw(-top, top);
      weights[o * depth + i] = static_cast<std::int8_t>(level);
      panel[((o / 16 * steps + i / 4) * 16 + o % 16) * 4 + i % 4] = static_cast<std::int8_t>(level);
    }
  const size_t ldc = n + static_cast<size_t>(draw(0, 5));
  Vec<std::int32_t> c(rows * ldc, 77);
  k.gemm_u8s8(a.data(), lda, rows, panel.data(), steps, blocks, wide, c.data(), ldc);
  bool good = true;
  for (size_t p = 0; p < rows; ++p)
    for (size_t o = 0; o < ldc; ++o) {
      std::int32_t sum = o < n ? 0 : 77;
      for (size_t i = 0; o < n && i < depth; ++i) sum += a[p * lda + i] * weights[o * depth + i];
      good = good && sum == c[p * ldc + o];
    }
  expect(good, k, "gemm_u8s8" + shape({rows, depth, blocks, wide, extreme}));
}

void test_gemm_f32(const KernelTable& k, size_t rows, size_t depth, size_t blocks) {
  const size_t n = blocks * 16, lda = depth + static_cast<size_t>(draw(0, 3)),
               ldc = n + static_cast<size_t>(draw(0, 5));
  const Vec<float> a = draw_floats(rows == 0 ? 0 : (rows - 1) * lda + depth), panel = draw_floats(n * depth);
  Vec<float> c(rows * ldc, 77);
  k.gemm_f32(a.data(), lda, rows, panel.data(), depth, blocks, c.data(), ldc);
  bool good = true;
  for (size_t p = 0; p < rows; ++p)
    for (size_t o = 0; o < ldc; ++o) {
      double sum = o < n ? 0 : 77, size = 1;
      for (size_t i = 0; o < n && i < depth; ++i) {
        const double product = double{a[p * lda + i]} * panel[(o / 16 * depth + i) * 16 + o % 16];
        sum += product;
        size += std::fabs(product);
      }
      good = good && std::fabs(sum - c[p * ldc + o]) <= 1e-6 * size;
    }
  expect(good, k, "gemm_f32" + shape({rows, depth, blocks}));
}

void test_decode(const KernelTable& k, Codec codec, size_t total, size_t first, size_t count) {
  Vec<std::uint8_t> stream;
  Vec<int> levels(total);
  const auto two_planes = (total * 2 + 7) / 8 + (total + 7) / 8;
  if (codec == Codec::int8) stream.resize(total);
  if (codec == Codec::int4) stream.resize((total * 4 + 7) / 8);
  if (codec == Codec::int3) stream.resize(two_planes);
  if (codec == Codec::int2 || codec == Codec::ternary) stream.resize((total * 2 + 7) / 8);
  if (codec == Codec::binary || codec == Codec::apb) stream.resize((total + 7) / 8);
  for (size_t i = 0; i < total; ++i) {
    if (codec == Codec::int8) {
      levels[i] = draw(-128, 127);
      stream[i] = static_cast<std::uint8_t>(levels[i]);
    } else if (codec == Codec::int4) {
      const int code = draw(0, 15);
      levels[i] = 2 * code - 15;
      put_bits(stream.data(), i, 4, static_cast<unsigned>(code));
    } else if (codec == Codec::int3) {
      const int code = draw(0, 7);
      levels[i] = 2 * code - 7;
      put_bits(stream.data(), i, 2, static_cast<unsigned>(code & 3));
      put_bits(stream.data() + (total * 2 + 7) / 8, i, 1, static_cast<unsigned>(code >> 2));
    } else if (codec == Codec::int2 || codec == Codec::ternary) {
      const int code = codec == Codec::int2 ? draw(0, 3) : draw(0, 2);
      levels[i] = codec == Codec::int2 ? 2 * code - 3 : code - 1;
      put_bits(stream.data(), i, 2, static_cast<unsigned>(code));
    } else {
      const int code = draw(0, 1);
      levels[i] = 2 * code - 1;
      put_bits(stream.data(), i, 1, static_cast<unsigned>(code));
    }
  }
  Vec<std::int8_t> out(count + 1, 99);
  k.decode(codec, stream.data(), total, first, count, out.data());
  bool good = out[count] == 99;
  for (size_t i = 0; i < count; ++i) good = good && out[i] == levels[first + i];
  expect(good, k, "decode" + shape({static_cast<size_t>(codec), total, first, count}));
}

void test_add_kept(const KernelTable& k, size_t rows, size_t depth, size_t channels, double density, bool ascending) {
  const size_t lda = depth + static_cast<size_t>(draw(0, 5)), ldc = channels + static_cast<size_t>(draw(0, 5));
  const std::int32_t zero_point = draw(0, 255);
  const auto a = draw_ints<std::uint8_t>(rows == 0 ? 0 : (rows - 1) * lda + depth, 0, 255);
  Vec<std::uint32_t> start{3}, position(3, 0);  // the first entries belong to another panel
  for (size_t o = 0; o < channels; ++o) {
    const size_t begin = position.size();
    for (size_t i = 0; i < depth; ++i)
      if (draw_float(0, 1) < density) position.push_back(static_cast<std::uint32_t>(i));
    if (!ascending) std::reverse(position.begin() + static_cast<std::ptrdiff_t>(begin), position.end());
    start.push_back(static_cast<std::uint32_t>(position.size()));
  }
  const Vec<float> residual = draw_floats(position.size());
  const Vec<float> before = draw_floats(rows * ldc);
  Vec<float> c = before;
  k.add_kept(a.data(), lda, rows, Kept{start.data(), position.data(), residual.data()}, channels, zero_point, c.data(),
             ldc);
  bool good = true;
  for (size_t p = 0; p < rows; ++p)
    for (size_t o = 0; o < ldc; ++o) {
      double sum = before[p * ldc + o], size = 1;
      for (size_t i = o < channels ? start[o] : 0; o < channels && i < start[o + 1]; ++i) {
        const double product = double(a[p * lda + position[i]] - zero_point) * residual[i];
        sum += product;
        size += std::fabs(product);
      }
      good = good && std::fabs(sum - c[p * ldc + o]) <= 1e-6 * size;
    }
  expect(good, k, "add_kept" + shape({rows, depth, channels, static_cast<size_t>(density * 1000), ascending}));
}

void test_depthwise(const KernelTable& k, size_t pixels, size_t taps, size_t channels, bool extreme) {
  const size_t sources = pixels + taps, ldc = channels + static_cast<size_t>(draw(0, 5));
  auto a = draw_ints<std::uint8_t>(sources * channels, 0, 255);
  auto w = draw_ints<std::int8_t>(taps * channels, -127, 127);
  if (extreme) {
    std::fill(a.begin(), a.end(), std::uint8_t{255});
    for (size_t i = 0; i < w.size(); ++i) w[i] = i % 2 ? -128 : 127;
  }
  const Vec<float> x = draw_floats(sources * channels), wf = draw_floats(taps * channels);
  const std::int32_t zero_point = draw(0, 255);
  Vec<const std::uint8_t*> bytes;
  Vec<const float*> floats;
  Vec<size_t> source;
  for (size_t i = 0; i < pixels * taps; ++i) {
    source.push_back(static_cast<size_t>(draw(0, static_cast<int>(sources) - 1)));
    bytes.push_back(a.data() + source.back() * channels);
    floats.push_back(x.data() + source.back() * channels);
  }
  Vec<std::int32_t> c(pixels * ldc, 77);
  Vec<float> from_u8(pixels * ldc, 77), from_f32(pixels * ldc, 77);
  k.depthwise_u8s8(bytes.data(), pixels, taps, channels, w.data(), c.data(), ldc);
  k.depthwise_u8f32(bytes.data(), pixels, taps, channels, wf.data(), zero_point, from_u8.data(), ldc);
  k.depthwise_f32(floats.data(), pixels, taps, channels, wf.data(), from_f32.data(), ldc);
  bool good = true, good_u8 = true, good_f32 = true;
  for (size_t p = 0; p < pixels; ++p)
    for (size_t ch = 0; ch < ldc; ++ch) {
      const bool inside = ch < channels;
      std::int32_t sum = inside ? 0 : 77;
      double sum_u8 = sum, sum_f32 = sum;
      for (size_t t = 0; inside && t < taps; ++t) {
        const size_t i = source[p * taps + t] * channels + ch, j = t * channels + ch;
        sum += a[i] * w[j];
        sum_u8 += double(a[i] - zero_point) * wf[j];
        sum_f32 += double{x[i]} * wf[j];
      }
      good = good && sum == c[p * ldc + ch];
      good_u8 = good_u8 && std::fabs(sum_u8 - from_u8[p * ldc + ch]) <= 1e-4 * static_cast<double>(taps);
      good_f32 = good_f32 && std::fabs(sum_f32 - from_f32[p * ldc + ch]) <= 1e-5 * static_cast<double>(taps);
    }
  const std::string sizes = shape({pixels, taps, channels, extreme});
  expect(good, k, "depthwise_u8s8" + sizes);
  expect(good_u8, k, "depthwise_u8f32" + sizes);
  expect(good_f32, k, "depthwise_f32" + sizes);
}

float activated(float x, const Activation& a) {
  const double e = std::exp(-double{x});
  switch (a.kind) {
    case ActivationKind::identity:
      return x;
    case ActivationKind::clamp:
      return std::isnan(x) ? x : std::min(std::max(x, a.low), a.high);
    case ActivationKind::hard_swish:
      return static_cast<float>(double{x} * std::min(std::max(double{x} + 3, 0.0), 6.0) / 6);
    case ActivationKind::silu:
      return static_cast<float>(x / (1 + e));
    case ActivationKind::sigmoid:
      return static_cast<float>(1 / (1 + e));
    case ActivationKind::hard_sigmoid:
      return static_cast<float>(std::min(std::max(double{x} + 3, 0.0), 6.0) / 6);
  }
  return 0;
}

std::uint8_t quantised(float y, const Range& r) {
  if (std::isnan(y)) return 0;
  const float inverse = 1.0f / r.scale;
  const double q = std::nearbyint(double{y * inverse}) + r.zero_point;
  return static_cast<std::uint8_t>(std::min(std::max(q, 0.0), 255.0));
}

Range draw_range() { return {draw_float(0.01f, 0.2f), draw(0, 255)}; }

const ActivationKind kKinds[] = {ActivationKind::identity, ActivationKind::clamp,   ActivationKind::hard_swish,
                                 ActivationKind::silu,     ActivationKind::sigmoid, ActivationKind::hard_sigmoid};

// One epilogue at every level; exact where the activation is exact, else one step of u8 or 1e-6. Returns what it wrote.
template <class C>
Vec<std::uint8_t> run_store(const KernelTable& k, const Vec<C>& c, size_t ldc, size_t rows, size_t n, Epilogue e) {
  const size_t size = e.out_format == Format::u8 ? 1 : 4;
  Vec<std::uint8_t> out(rows * e.out_stride * size, 0x5a);
  e.out = out.data();
  if constexpr (std::is_same_v<C, float>)
    k.store_f32(c.data(), ldc, rows, n, e);
  else
    k.store_i32(c.data(), ldc, rows, n, e);
  return out;
}

template <class C>
void test_store(size_t rows, size_t n, const Vec<C>& c, size_t ldc) {
  Epilogue e;
  const Vec<float> multiplier = draw_floats(n, -0.01f, 0.01f), bias = draw_floats(n);
  const size_t residual_stride = n + static_cast<size_t>(draw(0, 3));
  const Vec<float> residual = draw_floats(rows * residual_stride);
  const auto residual_u8 = draw_ints<std::uint8_t>(rows * residual_stride, 0, 255);
  if (draw(0, 3)) e.multiplier = multiplier.data();
  if (draw(0, 3)) e.bias = bias.data();
  const int kind_of_residual = draw(0, 2);
  e.residual_stride = residual_stride;
  e.residual_range = draw_range();
  if (kind_of_residual == 1) e.residual = residual.data();
  if (kind_of_residual == 2) e.residual = residual_u8.data(), e.residual_format = Format::u8;
  e.activation.kind = kKinds[draw(0, 5)];
  if (e.activation.kind == ActivationKind::clamp)
    e.activation.low = 0, e.activation.high = draw(0, 1) ? 1.0f : INFINITY;
  e.out_format = draw(0, 1) ? Format::u8 : Format::f32;
  e.out_range = draw_range();
  e.out_stride = n + static_cast<size_t>(draw(0, 3));
  const bool exact = e.activation.kind == ActivationKind::identity || e.activation.kind == ActivationKind::clamp;
  Vec<std::uint8_t> first;
  for (size_t level = 0; level < kLevelCount; ++level) {
    const KernelTable& k = *kLevels[level];
    if (!k.supported()) continue;
    const Vec<std::uint8_t> out = run_store(k, c, ldc, rows, n, e);
    const std::string sizes = shape({rows, n, std::is_same_v<C, float>, static_cast<size_t>(kind_of_residual),
                                     static_cast<size_t>(e.activation.kind), static_cast<size_t>(e.out_format)});
    if (first.empty()) first = out;
    expect(out == first, k, "store differs between levels" + sizes);
    bool good = true;
    for (size_t p = 0; p < rows; ++p)
      for (size_t o = 0; o < e.out_stride; ++o) {
        const size_t to = p * e.out_stride + o;
        float y = 0;
        if (o < n) {
          y = static_cast<float>(c[p * ldc + o]) * (e.multiplier ? multiplier[o] : 1.0f) + (e.bias ? bias[o] : 0.0f);
          if (kind_of_residual == 1) y += residual[p * residual_stride + o];
          if (kind_of_residual == 2)
            y += e.residual_range.scale *
                 static_cast<float>(residual_u8[p * residual_stride + o] - e.residual_range.zero_point);
          y = activated(y, e.activation);
        }
        if (e.out_format == Format::u8) {
          const int expected = o < n ? quantised(y, e.out_range) : 0x5a;
          good = good && std::abs(out[to] - expected) <= (exact || o >= n ? 0 : 1);
        } else {
          float got;
          std::memcpy(&got, &out[4 * to], 4);
          if (o >= n)
            good = good && out[4 * to] == 0x5a;
          else
            good = good && (exact ? got == y || (std::isnan(got) && std::isnan(y)) : close(got, y, 2e-6f));
        }
      }
    expect(good, k, "store" + sizes);
  }
}

void test_activations(const KernelTable& k) {
  for (ActivationKind kind : kKinds) {
    Activation a;
    a.kind = kind;
    if (kind == ActivationKind::clamp) a.low = -1, a.high = 6;
    Vec<float> x{0.0f, -0.0f, 1e-30f, -87.5f, -88.8f, -100.0f, -104.0f, 87.5f, 88.8f, 104.0f, 3e38f, -3e38f, NAN};
    for (int i = 0; i < 20000; ++i) x.push_back(draw_float(-20, 20));
    for (int i = 0; i < 2000; ++i) x.push_back(draw_float(-110, 110));
    Vec<float> y = x;
    k.activate(y.data(), y.size(), a);
    bool good = true;
    for (size_t i = 0; i < x.size(); ++i) {
      const float expected = activated(x[i], a);
      // Relative, down to where 1 / (1 + e^-x) leaves the range of float: e^-88.8 * 88.8 is 2.4e-37.
      const float slack = 1e-6f * std::fabs(expected) + 3e-37f;
      const bool near = std::isnan(expected)   ? std::isnan(y[i])
                        : std::isinf(expected) ? y[i] == expected
                                               : std::fabs(y[i] - expected) <= slack;
      // x + 3 rounds: near x = -3 the relative error of the hard ones has no bound, the absolute one has.
      const bool hard = kind == ActivationKind::hard_swish || kind == ActivationKind::hard_sigmoid;
      if (!near && !(hard && std::fabs(y[i] - expected) <= 2e-6f))
        std::printf("  %s kind %d x %.9g: %.9g, not %.9g\n", k.isa, static_cast<int>(kind), x[i], y[i], expected),
            good = false;
    }
    expect(good, k, "activate" + shape({static_cast<size_t>(kind)}));
  }
}

void test_elementwise(const KernelTable& k, size_t n) {
  const Vec<float> a = draw_floats(n), b = draw_floats(n), c = draw_floats(n);
  const auto q = draw_ints<std::uint8_t>(n, 0, 255), r = draw_ints<std::uint8_t>(n, 0, 255);
  const auto ints = draw_ints<std::int32_t>(n, std::numeric_limits<int>::min(), std::numeric_limits<int>::max());
  const Range range = draw_range();
  Vec<float> sum(n + 1, 7), product = sum, scaled = sum, converted = sum, from_u8 = sum, total = b, best = b;
  Vec<std::uint8_t> to_u8(n + 1, 7), best_u8 = r;
  total.push_back(7);
  best.push_back(7);
  best_u8.push_back(7);
  k.add(a.data(), b.data(), n, sum.data());
  k.multiply(a.data(), b.data(), n, product.data());
  k.scale_shift(a.data(), b.data(), c.data(), n, scaled.data());
  k.i32_to_f32(ints.data(), n, converted.data());
  k.dequantise(q.data(), n, range, from_u8.data());
  k.quantise(a.data(), n, range, to_u8.data());
  k.accumulate(a.data(), n, total.data());
  k.max_f32(a.data(), n, best.data());
  k.max_u8(q.data(), n, best_u8.data());
  bool good = sum[n] == 7 && product[n] == 7 && scaled[n] == 7 && converted[n] == 7 && from_u8[n] == 7;
  good = good && total[n] == 7 && best[n] == 7 && to_u8[n] == 7 && best_u8[n] == 7;
  expect(good, k, "element-wise writes behind its end" + shape({n}));
  for (size_t i = 0; i < n; ++i) {
    const std::string at = shape({n, i});
    expect(sum[i] == a[i] + b[i] && total[i] == sum[i], k, "add, accumulate" + at);
    const float scaled_once = a[i] * b[i];
    expect(product[i] == scaled_once && scaled[i] == scaled_once + c[i], k, "multiply, scale_shift" + at);
    expect(converted[i] == static_cast<float>(ints[i]), k, "i32_to_f32" + at);
    expect(from_u8[i] == range.scale * static_cast<float>(q[i] - range.zero_point), k, "dequantise" + at);
    expect(to_u8[i] == quantised(a[i], range), k, "quantise" + at);
    expect(best[i] == std::max(a[i], b[i]) && best_u8[i] == std::max(q[i], r[i]), k, "max" + at);
  }
}

// Halves go to even, what lies outside is clamped, NaN is 0.
void test_quantising_rule(const KernelTable& k) {
  const Vec<float> x{0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 1e30f, -1e30f, INFINITY, -INFINITY, NAN, 245.5f, 244.5f, -10.5f};
  const Vec<std::uint8_t> expected{10, 12, 12, 10, 8, 255, 0, 255, 0, 0, 255, 254, 0};
  for (size_t n = x.size(); n > 0; --n) {
    Vec<std::uint8_t> q(n);
    k.quantise(x.data(), n, Range{1, 10}, q.data());
    expect(std::equal(q.begin(), q.end(), expected.begin()), k, "quantising rule" + shape({n}));
  }
}

void test_level(const KernelTable& k) {
  for (bool wide : {false, true})
    for (size_t blocks = 1; blocks <= kMaxBlocks; ++blocks) {
      for (size_t rows = 0; rows <= kMaxRows; rows += rows < 26 ? 1 : 19)
        test_gemm_u8s8(k, rows, static_cast<size_t>(draw(0, 40)), blocks, wide, false);
      test_gemm_u8s8(k, kMaxRows, 301, blocks, wide, true);
      test_gemm_u8s8(k, 3, 2304, blocks, wide, true);
    }
  for (size_t blocks = 1; blocks <= kMaxBlocks; ++blocks)
    for (size_t rows = 0; rows <= kMaxRows; rows += rows < 26 ? 1 : 19)
      test_gemm_f32(k, rows, static_cast<size_t>(draw(0, 40)), blocks);
  for (int codec = 1; codec <= 7; ++codec)
    for (int i = 0; i < 60; ++i) {
      const int total = draw(0, 700), first = draw(0, total);
      test_decode(k, static_cast<Codec>(codec), static_cast<size_t>(total), static_cast<size_t>(first),
                  static_cast<size_t>(i % 3 ? draw(0, total - first) : total - first));
    }
  for (size_t rows : {0, 1, 2, 5, 9, 15, 16, 17, 31, 33, 47, 48, 49, 63, 64, 65, 130}) {
    test_add_kept(k, rows, static_cast<size_t>(draw(1, 700)), static_cast<size_t>(draw(1, 64)), 0.03, true);
    test_add_kept(k, rows, static_cast<size_t>(draw(1, 60)), static_cast<size_t>(draw(1, 64)), 0.3, true);
  }
  test_add_kept(k, 64, 300, 40, 0.05, false);
  test_add_kept(k, 64, 700, 64, 0.001, true);
  test_add_kept(k, 64, 50, 64, 0, true);
  test_add_kept(k, 40, 300, 150, 0.02, true);
  for (size_t taps : {1, 2, 3, 4, 5, 9, 25, 49, 81})
    for (size_t channels : {1, 7, 15, 16, 17, 31, 32, 33, 48, 67})
      test_depthwise(k, static_cast<size_t>(draw(0, 9)), taps, channels, taps == 81);
  test_activations(k);
  for (size_t n = 0; n < 70; ++n) test_elementwise(k, n);
  test_quantising_rule(k);
}

void test_stores() {
  for (int i = 0; i < 400; ++i) {
    const size_t rows = static_cast<size_t>(draw(0, 20)), n = static_cast<size_t>(draw(0, 70));
    const size_t ldc = n + static_cast<size_t>(draw(0, 3));
    test_store(rows, n, draw_ints<std::int32_t>(rows * ldc, -20000, 20000), ldc);
    test_store(rows, n, draw_floats(rows * ldc, -300, 300), ldc);
  }
}

// The sums of a row do not depend on how many rows were computed with it, and those of a layer that reads u8 are the
// same bits at every level.
void test_reproducible(const KernelTable& k) {
  generator.seed(7);  // all levels get the same numbers
  static Vec<float> first_kept, first_depthwise;
  const size_t rows = 50, depth = 200, n = 64;
  const Vec<float> x = draw_floats(rows * depth), panel = draw_floats(depth * n);
  const auto a = draw_ints<std::uint8_t>(rows * depth, 0, 255);
  Vec<std::uint32_t> start{0}, position;
  for (size_t o = 0; o < n; ++o) {
    for (size_t i = 0; i < depth; ++i)
      if (draw(0, 9) == 0) position.push_back(static_cast<std::uint32_t>(i));
    start.push_back(static_cast<std::uint32_t>(position.size()));
  }
  const Vec<float> residual = draw_floats(position.size());
  const Kept kept{start.data(), position.data(), residual.data()};
  Vec<float> product(rows * n), sum(rows * n), depthwise(rows * depth), part(rows * depth);
  k.gemm_f32(x.data(), depth, rows, panel.data(), depth, n / 16, product.data(), n);
  k.add_kept(a.data(), depth, rows, kept, n, 3, sum.data(), n);
  Vec<const std::uint8_t*> pointers;
  for (size_t i = 0; i < rows * 9; ++i) pointers.push_back(&a[static_cast<size_t>(draw(0, rows - 1)) * depth]);
  k.depthwise_u8f32(pointers.data(), rows, 9, depth, panel.data(), 3, depthwise.data(), depth);
  for (size_t count : {1, 2, 3, 5, 7, 13, 16, 33}) {
    bool good = true;
    for (size_t blocks = 1; blocks <= kMaxBlocks; ++blocks) {
      k.gemm_f32(x.data(), depth, count, panel.data(), depth, blocks, part.data(), n);
      for (size_t p = 0; p < count; ++p)
        good = good && std::memcmp(&part[p * n], &product[p * n], blocks * 16 * sizeof(float)) == 0;
    }
    expect(good, k, "gemm_f32 depends on the number of rows or blocks" + shape({count}));
    std::fill(part.begin(), part.end(), 0.0f);
    k.add_kept(a.data(), depth, count, kept, n, 3, part.data(), n);
    expect(std::memcmp(part.data(), sum.data(), count * n * sizeof(float)) == 0, k,
           "add_kept depends on the number of rows" + shape({count}));
    k.depthwise_u8f32(pointers.data(), count, 9, depth, panel.data(), 3, part.data(), depth);
    expect(std::memcmp(part.data(), depthwise.data(), count * depth * sizeof(float)) == 0, k,
           "depthwise_u8f32 depends on the number of pixels" + shape({count}));
  }
  if (first_kept.empty()) first_kept = sum, first_depthwise = depthwise;
  expect(first_kept == sum, k, "add_kept differs between levels");
  expect(first_depthwise == depthwise, k, "depthwise_u8f32 differs between levels");
}

double seconds(const std::function<void()>& run) {
  run();
  double best = 1e9;
  const auto now = [] { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()); };
  const auto start = now();
  for (int i = 0; i < 5 || (now() - start).count() < 0.1; ++i) {
    const auto before = now();
    run();
    best = std::min(best, (now() - before).count());
  }
  return best;
}

void report(const KernelTable& k, const char* what, const char* shape, double work, double time, const char* unit) {
  std::printf("%-11s %-22s %-22s %8.1f %-8s %8.2f us\n", k.isa, what, shape, work / time * 1e-9, unit, time * 1e6);
}

void bench_gemm(const KernelTable& k, size_t rows, size_t depth, size_t n) {
  char name[64];
  std::snprintf(name, sizeof name, "%zux%zux%zu", rows, depth, n);
  const auto a = draw_ints<std::uint8_t>(rows * depth, 0, 255);
  const auto w = draw_ints<std::int8_t>(n * depth, -127, 127);
  const Vec<float> af = draw_floats(rows * depth), wf = draw_floats(n * depth);
  const double macs = static_cast<double>(rows * depth * n);
  alignas(64) static std::int32_t c[kMaxRows * 64];
  alignas(64) static float cf[kMaxRows * 64];
  const auto tiles = [&](auto body) {
    for (size_t o = 0; o < n; o += 64)
      for (size_t p = 0; p < rows; p += kMaxRows)
        body(p, std::min(kMaxRows, rows - p), o, std::min(kMaxBlocks, (n - o) / 16));
  };
  for (bool wide : {false, true})
    report(k, wide ? "gemm_u8s8 wide" : "gemm_u8s8 narrow", name, macs, seconds([&] {
             tiles([&](size_t p, size_t count, size_t o, size_t blocks) {
               k.gemm_u8s8(&a[p * depth], depth, count, &w[o * depth], depth / 4, blocks, wide, c, 64);
             });
           }),
           "GMAC/s");
  Vec<std::uint8_t> out(rows * n);
  const Vec<float> multiplier = draw_floats(n, 0, 1e-4f), bias = draw_floats(n);
  Epilogue e;
  e.activation = {ActivationKind::clamp, 0, INFINITY};
  e.out_format = Format::u8;
  e.out_stride = n;
  e.out_range = {0.05f, 3};
  report(k, "gemm_u8s8 + store u8", name, macs, seconds([&] {
           tiles([&](size_t p, size_t count, size_t o, size_t blocks) {
             k.gemm_u8s8(&a[p * depth], depth, count, &w[o * depth], depth / 4, blocks, true, c, 64);
             e.multiplier = &multiplier[o], e.bias = &bias[o], e.out = &out[p * n + o];
             k.store_i32(c, 64, count, 16 * blocks, e);
           });
         }),
         "GMAC/s");
  report(k, "gemm_f32", name, macs, seconds([&] {
           tiles([&](size_t p, size_t count, size_t o, size_t blocks) {
             k.gemm_f32(&af[p * depth], depth, count, &wf[o * depth], depth, blocks, cf, 64);
           });
         }),
         "GMAC/s");
}

void bench_kept(const KernelTable& k, size_t rows, size_t depth, double density) {
  const auto a = draw_ints<std::uint8_t>(rows * depth, 0, 255);
  Vec<std::uint32_t> start{0}, position;
  for (size_t o = 0; o < 64; ++o) {
    for (size_t i = 0; i < depth; ++i)
      if (draw_float(0, 1) < density) position.push_back(static_cast<std::uint32_t>(i));
    start.push_back(static_cast<std::uint32_t>(position.size()));
  }
  const Vec<float> residual = draw_floats(position.size());
  Vec<float> c(rows * 64);
  char name[64];
  std::snprintf(name, sizeof name, "%zux%zux64 %.1f%%", rows, depth, density * 100);
  const Kept kept{start.data(), position.data(), residual.data()};
  report(k, "add_kept", name, static_cast<double>(rows * position.size()),
         seconds([&] { k.add_kept(a.data(), depth, rows, kept, 64, 3, c.data(), 64); }), "GMAC/s");
}

// Pixels of a padded image, in tiles as the executor cuts them.
void bench_depthwise(const KernelTable& k, size_t side, size_t kernel, size_t channels) {
  const size_t pixels = side * side, taps = kernel * kernel, width = side + kernel - 1;
  const auto a = draw_ints<std::uint8_t>(width * width * channels, 0, 255);
  const auto w = draw_ints<std::int8_t>(taps * channels, -127, 127);
  const Vec<float> x = draw_floats(a.size()), wf = draw_floats(w.size());
  Vec<const std::uint8_t*> bytes;
  Vec<const float*> floats;
  for (size_t p = 0; p < pixels; ++p)
    for (size_t t = 0; t < taps; ++t) {
      const size_t source = ((p / side + t / kernel) * width + p % side + t % kernel) * channels;
      bytes.push_back(&a[source]);
      floats.push_back(&x[source]);
    }
  Vec<std::int32_t> c(kMaxRows * channels);
  Vec<float> cf(kMaxRows * channels);
  char name[64];
  std::snprintf(name, sizeof name, "%zux%zu of %zux%zux%zu", kernel, kernel, side, side, channels);
  const double macs = static_cast<double>(pixels * taps * channels);
  const auto tiles = [&](auto body) {
    for (size_t p = 0; p < pixels; p += kMaxRows) body(p * taps, std::min(kMaxRows, pixels - p));
  };
  report(k, "depthwise_u8s8", name, macs, seconds([&] {
           tiles([&](size_t i, size_t count) {
             k.depthwise_u8s8(&bytes[i], count, taps, channels, w.data(), c.data(), channels);
           });
         }),
         "GMAC/s");
  report(k, "depthwise_u8f32", name, macs, seconds([&] {
           tiles([&](size_t i, size_t count) {
             k.depthwise_u8f32(&bytes[i], count, taps, channels, wf.data(), 3, cf.data(), channels);
           });
         }),
         "GMAC/s");
  report(k, "depthwise_f32", name, macs, seconds([&] {
           tiles([&](size_t i, size_t count) {
             k.depthwise_f32(&floats[i], count, taps, channels, wf.data(), cf.data(), channels);
           });
         }),
         "GMAC/s");
}

void bench_store(const KernelTable& k, ActivationKind kind, Format out_format, Format residual, const char* name) {
  const size_t rows = 64, n = 64;
  const auto c = draw_ints<std::int32_t>(rows * n, -20000, 20000);
  const Vec<float> multiplier = draw_floats(n, 0, 1e-4f), bias = draw_floats(n), x = draw_floats(rows * n);
  const auto q = draw_ints<std::uint8_t>(rows * n, 0, 255);
  Vec<float> out(rows * n);
  Epilogue e;
  e.multiplier = multiplier.data(), e.bias = bias.data();
  e.activation = {kind, 0, INFINITY};
  e.out = out.data(), e.out_format = out_format, e.out_stride = n, e.out_range = {0.05f, 3};
  e.residual_stride = n, e.residual_format = residual;
  if (residual == Format::f32) e.residual = x.data();
  if (residual == Format::u8) e.residual = q.data();
  report(k, "store_i32", name, static_cast<double>(rows * n), seconds([&] { k.store_i32(c.data(), n, rows, n, e); }),
         "G/s");
}

void bench_level(const KernelTable& k) {
  bench_gemm(k, 784, 1152, 128);
  bench_gemm(k, 3136, 576, 64);
  bench_gemm(k, 49, 4608, 512);
  bench_gemm(k, 1024, 144, 16);
  bench_gemm(k, 784, 1152, 32);
  bench_gemm(k, 1, 1024, 1024);
  bench_store(k, ActivationKind::clamp, Format::u8, Format::none, "clamp u8");
  bench_store(k, ActivationKind::clamp, Format::u8, Format::u8, "clamp u8 + u8");
  bench_store(k, ActivationKind::clamp, Format::f32, Format::f32, "clamp f32 + f32");
  bench_store(k, ActivationKind::silu, Format::u8, Format::none, "silu u8");
  bench_kept(k, 64, 1152, 0.02);
  bench_kept(k, 64, 2304, 0.005);
  bench_kept(k, 1, 1024, 0.02);
  bench_depthwise(k, 112, 3, 32);
  bench_depthwise(k, 14, 3, 512);
  bench_depthwise(k, 14, 5, 672);
  const size_t count = 1152 * 64;
  const auto stream = draw_ints<std::uint8_t>(count, 0, 255);
  Vec<std::int8_t> levels(count);
  const char* names[] = {"float32", "int8", "int4", "int3", "int2", "ternary", "binary"};
  for (int codec = 1; codec <= 6; ++codec)
    report(k, "decode", names[codec], static_cast<double>(count),
           seconds([&] { k.decode(static_cast<Codec>(codec), stream.data(), count, 0, count, levels.data()); }), "G/s");
  const Vec<float> x = draw_floats(4096);
  Vec<std::uint8_t> q(4096);
  report(k, "quantise", "4096", 4096, seconds([&] { k.quantise(x.data(), 4096, Range{0.05f, 3}, q.data()); }), "G/s");
}

}  // namespace

int main(int argc, char** argv) {
  const bool bench = argc > 1 && std::strcmp(argv[1], "--bench") == 0;
  try {
    std::printf("active %s\n", active_kernels().isa);
  } catch (const std::runtime_error& error) {
    std::printf("refused: %s\n", error.what());
    return 3;
  }
  if (argc > 1 && std::strcmp(argv[1], "--active") == 0) return 0;
  for (size_t level = 0; level < kLevelCount; ++level) {
    const KernelTable& k = *kLevels[level];
    if (!k.supported()) {
      std::printf("skipped %s: not supported by this machine\n", k.isa);
      continue;
    }
    if (bench)
      bench_level(k);
    else
      test_level(k), test_reproducible(k);
    std::printf("%s %s\n", bench ? "timed" : "tested", k.isa);
  }
  if (!bench) test_stores();
  std::printf("%d mismatches\n", failures);
  return failures ? 1 : 0;
}
