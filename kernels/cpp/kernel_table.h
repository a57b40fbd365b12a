// The kernels of one ISA level as a table of functions; the contract of each is one formula.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bitplan {

enum class Format : std::uint8_t { none = 0, f32 = 1, u8 = 2 };

// The numbers of bitplan/encodings.
enum class Codec : std::uint8_t {
  float32 = 0,
  int8 = 1,
  int4 = 2,
  int3 = 3,
  int2 = 4,
  ternary = 5,
  binary = 6,
  apb = 7
};

enum class ActivationKind : std::uint8_t {
  identity = 0,
  clamp = 1,
  hard_swish = 2,
  silu = 3,
  sigmoid = 4,
  hard_sigmoid = 5
};

struct Activation {
  ActivationKind kind = ActivationKind::identity;
  float low = 0, high = 0;  // clamp only
};

// x = scale * (q - zero_point)
struct Range {
  float scale = 1;
  std::int32_t zero_point = 0;
};

// How accumulators become a stored value, element by element:
//   y = activation(multiplier[o] * c + bias[o] + residual),  stored as f32, or as u8 in `out_range`
// (round to nearest even, clamp to 0..255). `bias` already holds -zero_point * sum_k level * multiplier.
struct Epilogue {
  const float* multiplier = nullptr;  // [n]; nullptr: 1
  const float* bias = nullptr;        // [n]; nullptr: 0
  const void* residual = nullptr;     // [rows][residual_stride], or nullptr
  std::size_t residual_stride = 0;    // elements
  Format residual_format = Format::f32;
  Range residual_range;
  Activation activation;
  void* out = nullptr;  // [rows][out_stride]
  std::size_t out_stride = 0;
  Format out_format = Format::f32;
  Range out_range;
};

// Kept weights of one panel of output channels, by channel: entries row_start[o] .. row_start[o + 1), k ascending
// within a channel (else add_kept is slow, not wrong).
struct Kept {
  const std::uint32_t* row_start;  // [channels + 1]
  const std::uint32_t* k;          // position along K
  const float* residual;           // ratio - level
};

constexpr std::size_t kBlock = 16;     // output channels of a panel block
constexpr std::size_t kStep = 4;       // weights along K that one 32-bit lane holds
constexpr std::size_t kMaxBlocks = 4;  // blocks per call of a gemm
constexpr std::size_t kMaxRows = 64;   // rows per call of a gemm and its epilogue

// What a row's results are depends neither on the other rows and blocks of the call nor, where the layer reads u8, on
// the level: the same bits at all of them. (Layers in f32 differ by how products and sums are rounded.)
struct KernelTable {
  const char* isa;
  bool (*supported)();

  // c[p][o] = sum_k a[p][k] * w[o][k], exact in int32, o < 16 * blocks. `panel`: [block][k_steps][16][4] levels, zero
  // behind the last weight. a has 4 * k_steps readable bytes per row (what lies behind K meets a zero weight).
  // `wide` says that |level| > 63 occurs (pairs of products may then exceed 16 bits).
  void (*gemm_u8s8)(const std::uint8_t* a, std::size_t lda, std::size_t rows, const std::int8_t* panel,
                    std::size_t k_steps, std::size_t blocks, bool wide, std::int32_t* c, std::size_t ldc);

  // c[p][o] = sum_k a[p][k] * w[o][k]; `panel`: [block][k][16].
  void (*gemm_f32)(const float* a, std::size_t lda, std::size_t rows, const float* panel, std::size_t k,
                   std::size_t blocks, float* c, std::size_t ldc);

  // Expands codes [first, first + count) of a resident stream to levels. `total`: codes in the stream (int3's second
  // plane begins behind the first). The resident stream of ternary has two bits per code, code - 1 being the level.
  void (*decode)(Codec codec, const std::uint8_t* stream, std::size_t total, std::size_t first, std::size_t count,
                 std::int8_t* levels);

  // c[p][o] += sum over the kept weights of channel o of (a[p][k] - zero_point) * residual, o < channels.
  void (*add_kept)(const std::uint8_t* a, std::size_t lda, std::size_t rows, const Kept& kept, std::size_t channels,
                   std::int32_t zero_point, float* c, std::size_t ldc);

  // Depthwise: c[p][ch] = sum_t tap(p, t)[ch] * w[t][ch], the taps of pixel p being pointers[p * taps + t].
  void (*depthwise_u8s8)(const std::uint8_t* const* pointers, std::size_t pixels, std::size_t taps,
                         std::size_t channels, const std::int8_t* w, std::int32_t* c, std::size_t ldc);
  // The same with float weights, over x = a - zero_point (APB).
  void (*depthwise_u8f32)(const std::uint8_t* const* pointers, std::size_t pixels, std::size_t taps,
                          std::size_t channels, const float* w, std::int32_t zero_point, float* c, std::size_t ldc);
  void (*depthwise_f32)(const float* const* pointers, std::size_t pixels, std::size_t taps, std::size_t channels,
                        const float* w, float* c, std::size_t ldc);

  // The epilogue over a tile of accumulators, n channels wide.
  void (*store_i32)(const std::int32_t* c, std::size_t ldc, std::size_t rows, std::size_t n, const Epilogue& e);
  void (*store_f32)(const float* c, std::size_t ldc, std::size_t rows, std::size_t n, const Epilogue& e);
  void (*i32_to_f32)(const std::int32_t* c, std::size_t n, float* out);

  // Element-wise pieces that the operations without weights are built from, on runs of n elements.
  void (*quantise)(const float* x, std::size_t n, Range range, std::uint8_t* out);
  void (*dequantise)(const std::uint8_t* q, std::size_t n, Range range, float* out);
  void (*activate)(float* x, std::size_t n, Activation activation);
  void (*add)(const float* a, const float* b, std::size_t n, float* out);
  void (*multiply)(const float* a, const float* b, std::size_t n, float* out);
  void (*scale_shift)(const float* x, const float* scale, const float* shift, std::size_t n, float* out);
  void (*accumulate)(const float* x, std::size_t n, float* sum);
  void (*max_f32)(const float* x, std::size_t n, float* best);
  void (*max_u8)(const std::uint8_t* x, std::size_t n, std::uint8_t* best);
};

// Best first; the last one is portable and runs everywhere.
extern const KernelTable* const kLevels[];
extern const std::size_t kLevelCount;

// The level that BITPLAN_ISA names, or the best that this machine supports; chosen once. Throws std::runtime_error
// where the variable names a level that is unknown or that this machine lacks.
const KernelTable& active_kernels();

}  // namespace bitplan
