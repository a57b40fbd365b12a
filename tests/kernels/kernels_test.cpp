// Compares what every supported level does besides products with plain references over random shapes:
// epilogues and element-wise pieces; `--bench` times them, `--active` prints which level would run.
// Exit code 1 and one line per mismatch where something differs. See test_kernels_cpp.py for how it is built.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "testing.h"

namespace {

using namespace bitplan;
using namespace bitplan::testing;

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

Range draw_range() { return {draw_float(0.01f, 0.2f), static_cast<float>(draw(0, 255))}; }

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
  const Range range = draw_range();
  Vec<float> sum(n + 1, 7), product = sum, scaled = sum, from_u8 = sum, total = b, best = b;
  Vec<std::uint8_t> to_u8(n + 1, 7), best_u8 = r;
  total.push_back(7);
  best.push_back(7);
  best_u8.push_back(7);
  k.add(a.data(), b.data(), n, sum.data());
  k.multiply(a.data(), b.data(), n, product.data());
  k.scale_shift(a.data(), b.data(), c.data(), n, scaled.data());
  k.dequantise(q.data(), n, range, from_u8.data());
  k.quantise(a.data(), n, range, to_u8.data());
  k.accumulate(a.data(), n, total.data());
  k.max_f32(a.data(), n, best.data());
  k.max_u8(q.data(), n, best_u8.data());
  bool good = sum[n] == 7 && product[n] == 7 && scaled[n] == 7 && from_u8[n] == 7;
  good = good && total[n] == 7 && best[n] == 7 && to_u8[n] == 7 && best_u8[n] == 7;
  expect(good, k, "element-wise writes behind its end" + shape({n}));
  for (size_t i = 0; i < n; ++i) {
    const std::string at = shape({n, i});
    expect(sum[i] == a[i] + b[i] && total[i] == sum[i], k, "add, accumulate" + at);
    const float scaled_once = a[i] * b[i];
    expect(product[i] == scaled_once && scaled[i] == scaled_once + c[i], k, "multiply, scale_shift" + at);
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
  bench_store(k, ActivationKind::clamp, Format::u8, Format::none, "clamp u8");
  bench_store(k, ActivationKind::clamp, Format::u8, Format::u8, "clamp u8 + u8");
  bench_store(k, ActivationKind::clamp, Format::f32, Format::f32, "clamp f32 + f32");
  bench_store(k, ActivationKind::silu, Format::u8, Format::none, "silu u8");
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
      test_level(k);
    std::printf("%s %s\n", bench ? "timed" : "tested", k.isa);
  }
  if (!bench) test_stores();
  std::printf("%d mismatches\n", failures);
  return failures ? 1 : 0;
}
