// Compares the products of bytes and floats, and the decoding of weights, of every supported level with plain
// references over random shapes; `--bench` times them. Levels that few machines have run with stand-ins for their
// instructions too. Exit code 1 and one line per mismatch where something differs. See test_kernels_cpp.py for how it
// is built.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "../../kernels/cpp/isa/levels.h"
#include "testing.h"

namespace bitplan {
extern const KernelTable kAvx2VnniStandIn, kAmxStandIn;
}

namespace {

using namespace bitplan;
using namespace bitplan::testing;

Vec<float> draw_floats(size_t n) {
  Vec<float> v(n);
  for (float& x : v) x = draw_float();
  return v;
}

// Rows of runs, every run being a block of its own, as long as the contract says: a sanitizer sees what is read beyond.
template <class T>
struct Rows {
  Vec<Vec<T>> runs;
  Vec<const T*> pointers;

  template <class Draw>
  Rows(size_t taps, size_t length, size_t rows, Draw draw_run) {
    const size_t count = rows * taps / 2 + 1;  // rows share runs, as the pixels of a convolution do
    for (size_t i = 0; i < count; ++i) runs.push_back(draw_run(length));
    for (size_t i = 0; i < rows * taps; ++i) pointers.push_back(runs[draw_size(0, count - 1)].data());
  }
};

enum class Fill { random, extreme };

struct Panel {
  Vec<std::int8_t> levels;  // [channel][k]
  Vec<std::int8_t> packed;

  Panel(size_t steps, size_t blocks, int max_level, Fill fill)
      : levels(blocks * 16 * steps * 4), packed(levels.size()) {
    for (size_t o = 0; o < blocks * 16; ++o)
      for (size_t k = 0; k < 4 * steps; ++k) {
        int level = draw(-max_level, max_level);
        if (fill == Fill::extreme) level = o % 3 ? max_level : max_level == 127 ? -128 : -max_level;
        levels[o * 4 * steps + k] = static_cast<std::int8_t>(level);
        packed[((o / 16 * steps + k / 4) * 16 + o % 16) * 4 + k % 4] = static_cast<std::int8_t>(level);
      }
  }
};

void test_bytes(const KernelTable& k, size_t rows, size_t taps, size_t run_steps, size_t blocks, int max_level,
                Fill fill) {
  const size_t steps = taps * run_steps, depth = 4 * steps, n = 16 * blocks, ldc = n + draw_size(0, 5);
  const Rows<std::uint8_t> a(taps, 4 * run_steps, rows, [&](size_t length) {
    Vec<std::uint8_t> run(length, 255);
    if (fill == Fill::random)
      for (auto& x : run) x = static_cast<std::uint8_t>(draw(0, 255));
    return run;
  });
  const Panel panel(steps, blocks, max_level, fill);
  const size_t lda = depth + draw_size(0, 9);
  Vec<std::uint8_t> matrix(rows == 0 ? 0 : (rows - 1) * lda + depth);
  for (size_t p = 0; p < rows; ++p)
    for (size_t tap = 0; tap < taps; ++tap)
      std::copy_n(a.pointers[p * taps + tap], 4 * run_steps, matrix.data() + p * lda + tap * 4 * run_steps);
  Vec<std::int32_t> expected(rows * ldc, 77), conv = expected, gemm = expected;
  for (size_t p = 0; p < rows; ++p)
    for (size_t o = 0; o < n; ++o) {
      std::int32_t sum = 0;
      for (size_t i = 0; i < depth; ++i) sum += matrix[p * lda + i] * panel.levels[o * depth + i];
      expected[p * ldc + o] = sum;
    }
  k.conv_u8s8(a.pointers.data(), taps, run_steps, rows, panel.packed.data(), blocks, max_level, conv.data(), ldc);
  k.gemm_u8s8(matrix.data(), lda, rows, panel.packed.data(), steps, blocks, max_level, gemm.data(), ldc);
  const std::initializer_list<size_t> sizes{rows, taps, run_steps, blocks, size_t(max_level), size_t(fill)};
  expect(conv == expected, k, "conv_u8s8", sizes);
  expect(gemm == expected, k, "gemm_u8s8", sizes);
}

// Products that are stored at once against the same in two calls. Runs of a row lie in one block, some of them twice.
void test_stored(const KernelTable& k, size_t rows, size_t taps, size_t run_steps, size_t n) {
  if (!k.conv_u8s8_store) return;
  const size_t run = 4 * run_steps, blocks = (n + 15) / 16, ldc = 16 * blocks, stride = n + draw_size(0, 5);
  Vec<size_t> offsets(taps);
  for (size_t& offset : offsets) offset = draw_size(0, taps - 1) * run;
  const Rows<std::uint8_t> a(1, taps * run, rows, [](size_t length) {
    Vec<std::uint8_t> block(length);
    for (auto& x : block) x = static_cast<std::uint8_t>(draw(0, 255));
    return block;
  });
  Vec<const std::uint8_t*> runs;
  for (const std::uint8_t* row : a.pointers)
    for (size_t offset : offsets) runs.push_back(row + offset);
  const Panel panel(taps * run_steps, blocks, 127, Fill::random);
  const Vec<float> multiplier = draw_floats(n), bias = draw_floats(n);
  Vec<std::uint8_t> residual(rows * stride);
  for (auto& x : residual) x = static_cast<std::uint8_t>(draw(0, 255));
  Epilogue e;
  if (draw(0, 3)) e.multiplier = multiplier.data();
  if (draw(0, 3)) e.bias = bias.data();
  if (draw(0, 1)) e.residual = residual.data();
  e.residual_format = Format::u8, e.residual_stride = stride, e.residual_range = {100, 100};
  if (draw(0, 1)) e.activation = {ActivationKind::clamp, 0, 40000};
  e.out_format = Format::u8, e.out_stride = stride, e.out_range = {400, static_cast<float>(draw(0, 255))};
  Vec<std::int32_t> sums(rows * ldc);
  Vec<std::uint8_t> expected(rows * stride, 0x5a), found = expected;
  k.conv_u8s8(runs.data(), taps, run_steps, rows, panel.packed.data(), blocks, 127, sums.data(), ldc);
  e.out = expected.data();
  k.store_i32(sums.data(), ldc, rows, n, e);
  e.out = found.data();
  k.conv_u8s8_store(a.pointers.data(), offsets.data(), taps, run_steps, rows, panel.packed.data(), blocks, n, e);
  expect(found == expected, k, "conv_u8s8_store", {rows, taps, run_steps, n});
}

// Sums are formed along K whatever the tile: no result depends on rows, blocks or how the rows are given.
void test_floats(const KernelTable& k, size_t rows, size_t taps, size_t run, size_t blocks) {
  const size_t depth = taps * run, n = 16 * blocks, ldc = n + draw_size(0, 5), lda = depth + draw_size(0, 3);
  const Rows<float> a(taps, run, rows, draw_floats);
  const Vec<float> panel = draw_floats(n * depth);
  Vec<float> matrix(rows == 0 ? 0 : (rows - 1) * lda + depth);
  for (size_t p = 0; p < rows; ++p)
    for (size_t tap = 0; tap < taps; ++tap)
      std::copy_n(a.pointers[p * taps + tap], run, matrix.data() + p * lda + tap * run);
  Vec<float> conv(rows * ldc, 77), gemm = conv;
  k.conv_f32(a.pointers.data(), taps, run, rows, panel.data(), blocks, conv.data(), ldc);
  k.gemm_f32(matrix.data(), lda, rows, panel.data(), depth, blocks, gemm.data(), ldc);
  bool good = true, same = true;
  for (size_t p = 0; p < rows; ++p) {
    for (size_t o = 0; o < ldc; ++o) {
      double sum = o < n ? 0 : 77, size = 1;
      for (size_t i = 0; o < n && i < depth; ++i) {
        const double product = double{matrix[p * lda + i]} * panel[(o / 16 * depth + i) * 16 + o % 16];
        sum += product, size += std::fabs(product);
      }
      good = good && std::fabs(sum - conv[p * ldc + o]) <= 1e-6 * size;
    }
    for (size_t block = 0; block < blocks; ++block) {
      float alone[16];
      k.gemm_f32(matrix.data() + p * lda, lda, 1, panel.data() + block * depth * 16, depth, 1, alone, 16);
      same = same && std::memcmp(alone, &conv[p * ldc + 16 * block], sizeof alone) == 0;
    }
  }
  expect(good, k, "conv_f32", {rows, taps, run, blocks});
  expect(same, k, "conv_f32 depends on the rows and blocks of the call", {rows, taps, run, blocks});
  expect(conv == gemm, k, "gemm_f32 differs from conv_f32", {rows, taps, run, blocks});
}

// Codes as bitplan/encodings packs them, and their levels.
struct Stream {
  Vec<std::uint8_t> bytes;
  Vec<int> levels;

  Stream(Codec codec, size_t total, int unit) : levels(total) {
    const size_t low = (total * 2 + 7) / 8;
    if (codec == Codec::int8) bytes.resize(total);
    if (codec == Codec::int4) bytes.resize((total * 4 + 7) / 8);
    if (codec == Codec::int3) bytes.resize(low + (total + 7) / 8);
    if (codec == Codec::int2 || codec == Codec::ternary) bytes.resize(low);
    if (codec == Codec::binary || codec == Codec::apb) bytes.resize((total + 7) / 8);
    for (size_t i = 0; i < total; ++i) {
      if (codec == Codec::int8) {
        levels[i] = draw(-128, 127);
        bytes[i] = static_cast<std::uint8_t>(levels[i]);
      } else if (codec == Codec::int4) {
        levels[i] = 2 * put(i, 4, draw(0, 15)) - 15;
      } else if (codec == Codec::int3) {
        const int code = draw(0, 7);
        put(i, 2, code & 3);
        put(8 * low + i, 1, code >> 2);
        levels[i] = 2 * code - 7;
      } else if (codec == Codec::int2) {
        levels[i] = 2 * put(i, 2, draw(0, 3)) - 3;
      } else if (codec == Codec::ternary) {
        levels[i] = put(i, 2, draw(0, 2)) - 1;
      } else {
        levels[i] = unit * (2 * put(i, 1, draw(0, 1)) - 1);
      }
    }
  }

  // The code at the i-th place of `bits` bits, from the least significant end.
  int put(size_t i, size_t bits, int code) {
    for (size_t b = 0; b < bits; ++b)
      if (code >> b & 1) bytes[(i * bits + b) / 8] |= static_cast<std::uint8_t>(1u << ((i * bits + b) % 8));
    return code;
  }
};

void test_decode(const KernelTable& k, Codec codec, int unit, size_t total, size_t first, size_t count) {
  const Stream stream(codec, total, unit);
  Vec<std::int8_t> out(count + 1, 99);
  k.decode(codec, unit, stream.bytes.data(), total, first, count, out.data());
  bool good = out[count] == 99;
  for (size_t i = 0; i < count; ++i) good = good && out[i] == stream.levels[first + i];
  expect(good, k, "decode", {size_t(codec), size_t(unit), total, first, count});
}

void test_gemv(const KernelTable& k, Codec codec, size_t k_steps, size_t before, size_t blocks, Fill fill) {
  const size_t block = k_steps * 64, total = (before + blocks) * block + draw_size(0, 9);
  const Stream stream(codec, total, 1);
  Vec<std::uint8_t> a(4 * k_steps, 255);
  if (fill == Fill::random)
    for (auto& x : a) x = static_cast<std::uint8_t>(draw(0, 255));
  Vec<std::int32_t> c(16 * blocks + 1, 77), expected = c;
  for (size_t o = 0; o < 16 * blocks; ++o) {
    expected[o] = 0;
    for (size_t i = 0; i < a.size(); ++i)
      expected[o] += a[i] * stream.levels[(before + o / 16) * block + (i / 4 * 16 + o % 16) * 4 + i % 4];
  }
  k.gemv_u8s8(codec, a.data(), k_steps, stream.bytes.data(), total, before * block, blocks, c.data());
  expect(c == expected, k, "gemv_u8s8", {size_t(codec), k_steps, before, blocks, size_t(fill)});
}

void test_level(const KernelTable& k) {
  for (int max_level : {127, 63, 31, 21, 15, 7, 3, 1})
    for (size_t blocks = 1; blocks <= kMaxBlocks; ++blocks) {
      for (size_t rows = 0; rows <= kMaxRows; rows += rows < 20 ? 1 : 11)
        test_bytes(k, rows, draw_size(1, 4), draw_size(1, 12), blocks, max_level, Fill::random);
      test_bytes(k, 14, 1, 0, blocks, max_level, Fill::random);
      test_bytes(k, 33, 9, 16, blocks, max_level, Fill::random);
      test_bytes(k, kMaxRows, 9, 32, blocks, max_level, Fill::extreme);
      test_bytes(k, 13, 1, 301, blocks, max_level, Fill::extreme);
    }
  for (size_t n = 1; n <= 16 * kMaxBlocks; n += n % 16 == 0 ? 1 : draw_size(1, 16 - n % 16))
    for (size_t rows = 0; rows <= kMaxRows; rows += rows < 20 ? 1 : 11)
      test_stored(k, rows, draw_size(1, 9), draw_size(1, 9), n);
  for (size_t blocks = 1; blocks <= kMaxBlocks; ++blocks)
    for (size_t rows = 0; rows <= kMaxRows; rows += rows < 26 ? 1 : 19)
      test_floats(k, rows, draw_size(1, 9), draw_size(0, 20), blocks);
  for (int codec = 1; codec <= 7; ++codec)
    for (size_t i = 0; i < 60; ++i) {
      const bool units = codec >= static_cast<int>(Codec::binary);
      const size_t total = draw_size(0, 700), first = draw_size(0, total);
      test_decode(k, static_cast<Codec>(codec), units ? draw(1, 63) : 1, total, first,
                  i % 3 ? draw_size(0, total - first) : total - first);
    }
  for (int codec = 1; codec <= 6; ++codec) {
    for (size_t i = 0; i < 40; ++i)
      test_gemv(k, static_cast<Codec>(codec), draw_size(1, 70), draw_size(0, 3), draw_size(0, 5), Fill::random);
    test_gemv(k, static_cast<Codec>(codec), 700, 1, 2, Fill::extreme);
    test_gemv(k, static_cast<Codec>(codec), 4099, 0, 1, Fill::extreme);
  }
}

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Job {
  std::string name;
  double work;  // in units of 1e9 per second
  std::function<void()> run;
  double best = 1e9;
};

// The shortest of some rounds in which all jobs take turns.
void time_jobs(const KernelTable& k, const char* shape, const char* unit, Vec<Job> jobs) {
  for (int round = 0; round < 12; ++round)
    for (Job& job : jobs) {
      const double start = now();
      job.run();
      job.best = std::min(job.best, now() - start);
    }
  for (const Job& job : jobs)
    std::printf("%-11s %-9s %-14s %8.1f %-7s %9.2f us\n", k.isa, shape, job.name.c_str(), job.work / job.best * 1e-9,
                unit, job.best * 1e6);
}

// A 3x3 convolution of a padded image, in tiles as the runtime cuts them, beside the same rows packed.
void bench_conv(const KernelTable& k, const char* name, size_t side, size_t channels) {
  const size_t width = side + 2, rows = side * side, depth = 9 * channels;
  Vec<std::uint8_t> image(width * width * channels), matrix(rows * depth);
  for (auto& x : image) x = static_cast<std::uint8_t>(generator());
  const Vec<float> floats = draw_floats(image.size()), float_panel = draw_floats(depth * channels);
  Vec<const std::uint8_t*> pointers;
  Vec<const float*> float_pointers;
  for (size_t p = 0; p < rows; ++p)
    for (size_t t = 0; t < 9; ++t) {
      const size_t at = ((p / side + t / 3) * width + p % side + t % 3) * channels;
      pointers.push_back(&image[at]);
      float_pointers.push_back(&floats[at]);
      std::copy_n(&image[at], channels, &matrix[p * depth + t * channels]);
    }
  const Vec<std::int8_t> panel(depth * channels, 1);
  Vec<std::int32_t> c(kMaxRows * 64);
  Vec<float> cf(kMaxRows * 64);
  const auto tiles = [&](auto body) {
    for (size_t p = 0; p < rows; p += kMaxRows)
      for (size_t o = 0; o < channels; o += 64) body(p, std::min(kMaxRows, rows - p), o);
  };
  const double work = static_cast<double>(rows * depth * channels);
  Vec<Job> jobs;
  for (int max_level : {127, 63, 15, 7, 3, 1}) {
    jobs.push_back({"gemm_u8s8 " + std::to_string(max_level), work, [=, &matrix, &panel, &c, &k] {
                      tiles([&](size_t p, size_t count, size_t o) {
                        k.gemm_u8s8(&matrix[p * depth], depth, count, &panel[o * depth], depth / 4, 4, max_level,
                                    c.data(), 64);
                      });
                    }});
    jobs.push_back({"conv_u8s8 " + std::to_string(max_level), work, [=, &pointers, &panel, &c, &k] {
                      tiles([&](size_t p, size_t count, size_t o) {
                        k.conv_u8s8(&pointers[p * 9], 9, channels / 4, count, &panel[o * depth], 4, max_level, c.data(),
                                    64);
                      });
                    }});
  }
  jobs.push_back({"conv_f32", work, [&] {
                    tiles([&](size_t p, size_t count, size_t o) {
                      k.conv_f32(&float_pointers[p * 9], 9, channels, count, &float_panel[o * depth], 4, cf.data(), 64);
                    });
                  }});
  time_jobs(k, name, "GMAC/s", std::move(jobs));
}

// 4096 x 4096 weights that come from memory, beside a plain read of as many bytes; and decoding from the cache.
void bench_codecs(const KernelTable& k) {
  constexpr size_t kSide = 4096, kSpan = size_t{256} << 20;
  const char* names[] = {"float32", "int8", "int4", "int3", "int2", "ternary", "binary"};
  const size_t bits[] = {0, 8, 4, 3, 2, 2, 1};
  Vec<std::uint64_t> memory(kSpan / 8, 0x5555555555555555);
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(memory.data());
  const Vec<std::uint8_t> a(kSide, 200);
  Vec<std::int32_t> c(kSide);
  Vec<std::int8_t> levels(1 << 16);
  std::uint64_t sink = 0;
  for (int codec = 1; codec <= 6; ++codec) {
    const size_t size = kSide * kSide / 8 * bits[codec], places = kSpan / size;
    size_t turn = 0;
    const auto next = [&] { return turn++ % places * size; };
    time_jobs(k, names[codec], "GB/s",
              {{"gemv_u8s8", static_cast<double>(size),
                [&] {
                  k.gemv_u8s8(static_cast<Codec>(codec), a.data(), kSide / 4, bytes + next(), kSide * kSide, 0,
                              kSide / 16, c.data());
                }},
               {"plain read", static_cast<double>(size),
                [&] {
                  const std::uint64_t* from = &memory[next() / 8];
                  std::uint64_t sums[8] = {};
                  for (size_t i = 0; i < size / 8; i += 8)
                    for (size_t j = 0; j < 8; ++j) sums[j] += from[i + j];
                  for (std::uint64_t sum : sums) sink += sum;
                }},
               {"decode", static_cast<double>(levels.size()), [&] {
                  k.decode(static_cast<Codec>(codec), 5, bytes, levels.size(), 0, levels.size(), levels.data());
                }}});
  }
  if (sink == 1) std::printf("\n");  // keeps the plain reads
}

void run(const KernelTable& k, bool supported, bool bench) {
  if (!supported) {
    std::printf("skipped %s: not supported by this machine\n", k.isa);
    return;
  }
  if (bench) {
    bench_conv(k, "64@56", 56, 64);
    bench_conv(k, "512@7", 7, 512);
    bench_codecs(k);
  } else {
    test_level(k);
  }
  std::printf("%s %s\n", bench ? "timed" : "tested", k.isa);
}

}  // namespace

int main(int argc, char** argv) {
  const bool bench = argc > 1 && std::strcmp(argv[1], "--bench") == 0;
  const char* only = argc > 2 ? argv[2] : nullptr;
  for (size_t level = 0; level < kLevelCount; ++level)
    if (!only || std::strcmp(only, kLevels[level]->isa) == 0) run(*kLevels[level], kLevels[level]->supported(), bench);
#if defined(__x86_64__)
  if (!bench) {
    KernelTable avx2vnni = kAvx2VnniStandIn, amx = kAmxStandIn;
    avx2vnni.isa = "avx2vnni_stand_in", amx.isa = "amx_stand_in";
    for (const KernelTable* level : {&avx2vnni, &amx}) run(*level, has_avx512vnni(), false);
  }
#endif
  std::printf("%d mismatches\n", failures);
  return failures ? 1 : 0;
}
