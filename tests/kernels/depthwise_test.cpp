// Compares depthwise convolution of every supported level with plain references over random shapes; `--bench` times it.
// Levels that few machines have run with stand-ins for their instructions too. Exit code 1 and one line per mismatch
// where something differs. See test_kernels_cpp.py for how it is built.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <vector>

#include "../../kernels/cpp/isa/levels.h"
#include "testing.h"

namespace bitplan {
extern const KernelTable kAvx2VnniStandIn;
}

namespace {

using namespace bitplan;
using namespace bitplan::testing;

// Pixels of `channels` elements, every one a block of its own, and lines of columns that point to them, the lines as
// long as the contract says: a sanitizer sees what is read beyond.
template <class T>
struct Lines {
  Vec<Vec<T>> pixels;
  Vec<Vec<const T*>> columns;
  Vec<const T* const*> lines;

  template <class Draw>
  Lines(const DepthwiseTile& tile, Draw draw_element) {
    const size_t count = tile.rows * tile.columns() + 2;
    for (size_t i = 0; i < count; ++i) {
      pixels.emplace_back(tile.first + tile.channels);
      std::generate(pixels.back().begin(), pixels.back().end(), draw_element);
    }
    for (size_t i = 0; i < tile.rows * tile.height; ++i) {
      columns.emplace_back();
      for (size_t x = 0; x < tile.columns(); ++x) columns.back().push_back(pixels[draw_size(0, count - 1)].data());
    }
    for (const auto& line : columns) lines.push_back(line.data());
  }
};

template <class T>
Vec<T> draw_weights(const DepthwiseTile& tile, const std::function<T()>& draw_weight) {
  Vec<T> w((tile.height * tile.width - 1) * tile.w_stride + tile.first + tile.channels);
  std::generate(w.begin(), w.end(), draw_weight);
  return w;
}

// Sum of the products of a pixel and a channel of the tile, formed as the contract says.
template <class Sum, class A, class W>
Sum reference(const Lines<A>& a, const DepthwiseTile& tile, const Vec<W>& w, size_t row, size_t p, size_t ch) {
  Sum sum = 0;
  for (size_t y = 0; y < tile.height; ++y)
    for (size_t x = 0; x < tile.width; ++x)
      sum += Sum(a.lines[row * tile.height + y][p * tile.stride + x * tile.dilation][ch]) *
             Sum(w[(y * tile.width + x) * tile.w_stride + ch]);
  return sum;
}

// Calls good(row, pixel, channel of the tile, what was written); true where all are and nothing else was written.
template <class C, class Good>
bool all_of(const Vec<C>& c, const DepthwiseTile& tile, size_t ldc, C untouched, const Good& good) {
  for (size_t i = 0; i < c.size(); ++i) {
    const size_t row = i / ldc / tile.pixels, p = i / ldc % tile.pixels, ch = i % ldc;
    if (ch < tile.channels ? !good(row, p, ch, c[i]) : c[i] != untouched) return false;
  }
  return true;
}

void expect(bool good, const KernelTable& k, const char* what, const DepthwiseTile& t) {
  if (good || ++failures > 40) return;
  std::printf("MISMATCH %s %s %zux%zu stride %zu dilation %zu, %zu rows of %zu pixels, channels %zu + %zu\n", k.isa,
              what, t.height, t.width, t.stride, t.dilation, t.rows, t.pixels, t.first, t.channels);
}

void test_bytes(const KernelTable& k, const DepthwiseTile& tile, bool extreme) {
  const size_t ldc = tile.channels + draw_size(0, 5);
  const Lines<std::uint8_t> a(tile, [&] { return std::uint8_t(extreme ? 255 : draw(0, 255)); });
  const auto w = draw_weights<std::int8_t>(
      tile, [&] { return std::int8_t(extreme ? (draw(0, 9) ? 127 : -127) : draw(-127, 127)); });
  Vec<std::int32_t> c(tile.rows * tile.pixels * ldc, 77);
  k.depthwise_u8s8(a.lines.data(), tile, w.data(), c.data(), ldc);
  expect(all_of(c, tile, ldc, 77,
                [&](size_t row, size_t p, size_t ch, std::int32_t sum) {
                  return sum == reference<std::int32_t>(a, tile, w, row, p, tile.first + ch);
                }),
         k, "depthwise_u8s8", tile);
}

void test_floats(const KernelTable& k, const DepthwiseTile& tile) {
  const size_t ldc = tile.channels + draw_size(0, 5);
  const Lines<float> a(tile, [] { return draw_float(); });
  const auto w = draw_weights<float>(tile, [] { return draw_float(); });
  Vec<float> c(tile.rows * tile.pixels * ldc, 77);
  k.depthwise_f32(a.lines.data(), tile, w.data(), c.data(), ldc);
  const double tolerance = 1e-6 * static_cast<double>(tile.height * tile.width);
  expect(all_of(c, tile, ldc, 77.0f,
                [&](size_t row, size_t p, size_t ch, float sum) {
                  return std::fabs(sum - reference<double>(a, tile, w, row, p, tile.first + ch)) <= tolerance;
                }),
         k, "depthwise_f32", tile);
  // A pixel's bits depend on none of its neighbours.
  for (size_t p = 0; p < tile.pixels; ++p) {
    DepthwiseTile alone = tile;
    alone.rows = alone.pixels = 1;
    Vec<const float* const*> lines(a.lines.begin(), a.lines.begin() + static_cast<std::ptrdiff_t>(tile.height));
    for (auto& line : lines) line += p * tile.stride;
    Vec<float> one(tile.channels);
    k.depthwise_f32(lines.data(), alone, w.data(), one.data(), tile.channels);
    expect(std::equal(one.begin(), one.end(), c.begin() + static_cast<std::ptrdiff_t>(p * ldc)), k,
           "depthwise_f32, pixel by pixel,", tile);
  }
}

DepthwiseTile draw_tile(size_t height, size_t width) {
  DepthwiseTile tile{};
  tile.height = height, tile.width = width;
  tile.stride = draw_size(1, draw_size(0, 3) ? 2 : 4);
  tile.dilation = draw_size(0, 3) ? 1 : draw_size(2, 3);
  tile.rows = draw_size(1, 3), tile.pixels = draw_size(1, 19);
  tile.first = draw_size(0, 2) * 16, tile.channels = draw_size(0, 1) ? draw_size(1, 70) : 16 * draw_size(1, 4);
  tile.w_stride = tile.first + tile.channels + draw_size(0, 9);
  return tile;
}

void test_level(const KernelTable& k) {
  for (size_t size : {1, 2, 3, 4, 5, 7, 9})
    for (int i = 0; i < 60; ++i) {
      test_bytes(k, draw_tile(size, size), i % 4 == 0);
      test_floats(k, draw_tile(size, size));
    }
  for (int i = 0; i < 60; ++i) {
    test_bytes(k, draw_tile(draw_size(1, 9), draw_size(1, 9)), i % 4 == 0);
    test_floats(k, draw_tile(draw_size(1, 9), draw_size(1, 9)));
  }
}

template <class Run>
double seconds(const Run& run) {
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

// An image of lines of a side, row by row as the executor cuts it.
template <class A, class W, class C, class Kernel>
void bench(const KernelTable& k, const char* what, Kernel kernel, size_t side, size_t size, size_t stride,
           size_t channels) {
  DepthwiseTile tile{size,    size, stride, 1, 1, std::min(side, 64 / stride), 0, std::min<size_t>(channels, 32),
                     channels};
  tile.rows = std::min(64 / stride / tile.pixels, side);
  const size_t width = tile.columns(), height = (side - 1) * stride + size;
  const Vec<A> a(width * height * channels, 1);
  const Vec<W> w(size * size * channels, 1);
  Vec<C> c(tile.rows * tile.pixels * tile.channels);
  Vec<Vec<const A*>> columns(height);
  for (size_t i = 0; i < width * height; ++i) columns[i / width].push_back(&a[i * channels]);
  const size_t tiles = side / tile.rows;
  Vec<const A* const*> lines;
  for (size_t row = 0; row < tiles * tile.rows; ++row)
    for (size_t y = 0; y < size; ++y) lines.push_back(columns[row * stride + y].data());
  const double time = seconds([&] {
    for (size_t i = 0; i < tiles; ++i)
      for (tile.first = 0; tile.first + tile.channels <= channels; tile.first += tile.channels)
        kernel(&lines[i * tile.rows * size], tile, w.data(), c.data(), tile.channels);
  });
  const double macs =
      static_cast<double>(tiles * tile.rows * tile.pixels * (channels / tile.channels * tile.channels)) *
      static_cast<double>(size * size);
  std::printf("%-19s %s %zux%zu stride %zu to %zux%zux%zu: %.1f GMAC/s, %.2f us\n", k.isa, what, size, size, stride,
              side, tile.pixels, channels, macs / time * 1e-9, time * 1e6);
}

void bench_level(const KernelTable& k) {
  const size_t shapes[][4] = {{112, 3, 1, 32}, {56, 3, 1, 128}, {28, 5, 1, 256}, {14, 3, 1, 512},
                              {14, 5, 1, 640}, {7, 5, 1, 1152}, {56, 3, 2, 96},  {28, 7, 1, 192}};
  for (const auto& [side, size, stride, channels] : shapes) {
    bench<std::uint8_t, std::int8_t, std::int32_t>(k, "u8s8", k.depthwise_u8s8, side, size, stride, channels);
    bench<float, float, float>(k, "f32", k.depthwise_f32, side, size, stride, channels);
  }
}

void run_level(const KernelTable& k, bool supported, bool timed) {
  if (!supported) {
    std::printf("skipped %s: not supported by this machine\n", k.isa);
    return;
  }
  timed ? bench_level(k) : test_level(k);
  std::printf("%s %s\n", timed ? "timed" : "tested", k.isa);
}

}  // namespace

int main(int argc, char** argv) {
  const bool timed = argc > 1 && std::strcmp(argv[1], "--bench") == 0;
  for (size_t level = 0; level < kLevelCount; ++level) run_level(*kLevels[level], kLevels[level]->supported(), timed);
#if defined(__x86_64__)
  KernelTable avx2vnni = kAvx2VnniStandIn;
  avx2vnni.isa = "avx2vnni_stand_in";
  run_level(avx2vnni, has_avx512vnni(), timed);
#endif
  std::printf("%d mismatches\n", failures);
  return failures ? 1 : 0;
}
