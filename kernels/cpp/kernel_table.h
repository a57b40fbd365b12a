// The kernels of one ISA level as a table of functions; the contract of each is one formula.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bitplan {

// Activation formats: f32, or codes q with x = scale * (q - zero_point). Codes below 8 bits lie as planes of bits: a
// run of n channels is [bits][words] of 32-bit words, words = ceil(n / 32), bit i of word w of plane b being bit b of
// the code of channel 32 w + i; bits behind the last channel are zero.
enum class Format : std::uint8_t { none = 0, f32 = 1, u8 = 2, u4 = 3, u2 = 4, u1 = 5 };

// The bits of a format's codes; 0 for f32.
constexpr unsigned bits_of(Format format) {
  constexpr unsigned kBits[] = {0, 0, 8, 4, 2, 1};
  return kBits[static_cast<int>(format)];
}
constexpr bool has_planes(Format format) { return format > Format::u8; }
constexpr std::size_t words_of(std::size_t channels) { return (channels + 31) / 32; }

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

// How a layer's products are formed; the numbers of bitplan/compute.py.
enum class Kernel : std::uint8_t {
  floats = 0,  // f32 activations
  bytes = 1,   // weights decoded to bytes, activations as bytes
  bits = 2,    // bit-serial: planes of activations against signs (and masks) of weights
  lookup = 3   // sums of four activations looked up by the signs of four weights
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

// x = scale * (q - zero_point). The zero point is whole, in u1 it may also be 0.5.
//   u8, u4, u2:  q = clamp(round(x * (1 / scale)) + zero_point, 0, 2^bits - 1), ties to even
//   u1:          q = 1 where x > scale * (0.5 - zero_point), else 0
struct Range {
  float scale = 1;
  float zero_point = 0;

  // The code that a convolution pads with.
  std::int32_t padding() const { return static_cast<std::int32_t>(zero_point); }
};

// How accumulators become a stored value, element by element:
//   y = activation(multiplier[o] * c + bias[o] + residual),  stored as f32, or as codes in `out_range`.
// `bias` already holds -zero_point * sum_k level * multiplier. The residual is f32 or u8. Where the output has planes
// of bits, `out` is the first word of the tile's channels in plane 0 of its first row, `out_stride` counts words from
// row to row and `out_plane` from plane to plane; the bits behind channel n in the last word are written as zeros.
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
  std::size_t out_plane = 0;
  Format out_format = Format::f32;
  Range out_range;
};

// Weights of the bit-serial kernels, for channels in blocks of 16. k runs over [tap][word][32]; a bit behind the last
// channel of a tap is zero in both planes.
struct BitWeights {
  const std::uint32_t* signs = nullptr;  // [block][taps * words][16]: bit set where the level is positive
  const std::uint32_t* masks = nullptr;  // the same: bit set where the level is not zero; nullptr: all levels are +-1
  const std::int32_t* offset = nullptr;  // [16 * blocks]: (2^planes - 1) (number of levels != 0 + sum of levels) / 2
};

// Weights of the look-up kernels, for channels in blocks of 32. k runs over [tap][word][8 groups][4]; the signs of a
// group are half a byte, bit i set where weight i is +1. Byte [h][l][i] of a word belongs to channel
// 16 h + i of the block: its low half to group l, its high half to group 4 + l.
struct LookupWeights {
  const std::uint8_t* signs = nullptr;   // [block of 32][taps * words][2][4][16]
  const std::uint8_t* second = nullptr;  // nullptr: level = sign; else level = (sign + second sign) / 2
};

// Weights that are kept out of a binary code, by channel: entries row_start[o] .. row_start[o + 1), k ascending within
// a channel, k counted as BitWeights counts it.
struct Kept {
  const std::uint32_t* row_start;  // [channels + 1]
  const std::uint32_t* k;
  const std::int16_t* residual;  // level - unit * sign, |residual| <= 126
};

// The same against activations in bytes. Of channel o, the entries start[2 o] .. start[2 o + 1) are subtracted,
// start[2 o + 1) .. start[2 o + 2) added.
struct KeptBytes {
  const std::uint32_t* start;     // [2 channels + 1]
  const std::uint32_t* place;     // the low kColumnBits bits are k
  const std::uint8_t* magnitude;  // |level - unit * sign| <= 63
};
constexpr unsigned kColumnBits = 25;

constexpr std::size_t kBlock = 16;     // output channels of a panel block
constexpr std::size_t kStep = 4;       // weights along K that one 32-bit lane holds
constexpr std::size_t kMaxBlocks = 4;  // blocks per call of a gemm
constexpr std::size_t kMaxRows = 64;   // rows per call of a gemm and its epilogue

// 64-bit words that transpose_rows writes for rows of so many 32-bit words per plane.
constexpr std::size_t kept_scratch(std::size_t words, unsigned planes) { return 32 * words * planes; }

// From byte to byte of the columns that write_columns writes.
constexpr std::size_t column_stride(std::size_t rows) { return rows <= kMaxRows / 2 ? kMaxRows / 2 : kMaxRows; }

// Bytes of the tables of a run. Tables are read fastest from multiples of 64 bytes.
constexpr std::size_t table_bytes(std::size_t words) { return 128 * words + 64; }

// Rows of a depthwise convolution's output and the channels of it that are formed at once.
struct DepthwiseTile {
  std::size_t height, width;     // of the kernel
  std::size_t stride, dilation;  // along a row
  std::size_t rows, pixels;      // of the output: so many rows of so many pixels
  std::size_t first, channels;   // channels [first, first + channels)
  std::size_t w_stride;          // all channels: elements from tap to tap of the weights

  // Input columns that a row meets.
  std::size_t columns() const { return (pixels - 1) * stride + (width - 1) * dilation + 1; }
};

// What a row's results are depends neither on the other rows and blocks of the call nor, where the layer reads u8, on
// the level: the same bits at all of them. (Layers in f32 differ by how products and sums are rounded.)
struct KernelTable {
  const char* isa;
  bool (*supported)();

  // c[p][o] = sum_k a[p][k] * w[o][k], exact in int32, o < 16 * blocks. `panel`: [block][k_steps][16][4] levels, zero
  // behind the last weight. a has 4 * k_steps readable bytes per row (what lies behind K meets a zero weight).
  // |level| <= max_level: small levels allow sums of products in 16 bits.
  void (*gemm_u8s8)(const std::uint8_t* a, std::size_t lda, std::size_t rows, const std::int8_t* panel,
                    std::size_t k_steps, std::size_t blocks, int max_level, std::int32_t* c, std::size_t ldc);
  // The same by indirection: the row p is `taps` runs of 4 * run_steps bytes, run t at pointers[p * taps + t];
  // k_steps = taps * run_steps.
  void (*conv_u8s8)(const std::uint8_t* const* pointers, std::size_t taps, std::size_t run_steps, std::size_t rows,
                    const std::int8_t* panel, std::size_t blocks, int max_level, std::int32_t* c, std::size_t ldc);
  // The same and the epilogue over the first n channels, while the sums are in registers; run t of row p is at
  // pointers[p] + offsets[t]. 16 * (blocks - 1) < n <= 16 * blocks; the activation is identity or clamp, the output u8,
  // the residual u8 or none. nullptr where a level does not gain by it.
  void (*conv_u8s8_store)(const std::uint8_t* const* pointers, const std::size_t* offsets, std::size_t taps,
                          std::size_t run_steps, std::size_t rows, const std::int8_t* panel, std::size_t blocks,
                          std::size_t n, const Epilogue& e);
  // One row straight from the resident stream of codes, the first of which belongs to a whole block of 16 channels:
  // c[o] = sum_k a[k] * level(first + [block][k_steps][16][4]), o < 16 * blocks. All codecs with levels but apb;
  // `first` is a multiple of 64.
  void (*gemv_u8s8)(Codec codec, const std::uint8_t* a, std::size_t k_steps, const std::uint8_t* stream,
                    std::size_t total, std::size_t first, std::size_t blocks, std::int32_t* c);

  // Both are nullptr at levels that multiply large levels as fast as small ones: kept weights then stand among the
  // decoded ones.
  // Rows of 1 to 64, as conv_u8s8 takes them, by k: columns[k * column_stride(rows) + p] = byte k of row p, k < taps *
  // run; anything behind the last row.
  void (*write_columns)(const std::uint8_t* const* pointers, std::size_t taps, std::size_t run, std::size_t rows,
                        std::uint8_t* columns);
  // c[p][o] = unit * c[p][o] + sum over the kept weights of channel o of +-magnitude * byte k of row p, o < channels.
  void (*add_kept_bytes)(const std::uint8_t* columns, std::size_t rows, const KeptBytes& kept, int unit,
                         std::size_t channels, std::int32_t* c, std::size_t ldc);

  // c[p][o] = sum_k a[p][k] * w[o][k]; `panel`: [block][k][16].
  void (*gemm_f32)(const float* a, std::size_t lda, std::size_t rows, const float* panel, std::size_t k,
                   std::size_t blocks, float* c, std::size_t ldc);
  // The same by indirection, runs of `run` floats; k = taps * run.
  void (*conv_f32)(const float* const* pointers, std::size_t taps, std::size_t run, std::size_t rows,
                   const float* panel, std::size_t blocks, float* c, std::size_t ldc);

  // Expands codes [first, first + count) of a resident stream to levels. `total`: codes in the stream (int3's second
  // plane begins behind the first). The resident stream of ternary has two bits per code, code - 1 being the level.
  // `unit`: the magnitude of the levels of binary and apb.
  void (*decode)(Codec codec, int unit, const std::uint8_t* stream, std::size_t total, std::size_t first,
                 std::size_t count, std::int8_t* levels);

  // Bit-serial: c[p][o] = sum_k q[p][k] * level[o][k], exact in int32, o < 16 * blocks. Row p is `taps` runs, run t
  // being [planes][words] at pointers[p * taps + t]. Formed as
  //   offset[o] - sum_b 2^b sum_k popcount((q_b[p] ^ signs[o]) & masks[o])
  void (*conv_bits)(const std::uint32_t* const* pointers, std::size_t taps, std::size_t words, unsigned planes,
                    std::size_t rows, const BitWeights& weights, std::size_t blocks, std::int32_t* c, std::size_t ldc);
  // The bits of at most 64 rows (pointers as of conv_bits), by k: bit p of masks[b * depth + k] is bit k of plane b of
  // row p, depth = 32 * taps * words; bits behind the last row are zero. `masks`: kept_scratch(taps * words, planes)
  // words.
  void (*transpose_rows)(const std::uint32_t* const* pointers, std::size_t taps, std::size_t words, unsigned planes,
                         std::size_t rows, std::uint64_t* masks);
  // c[p][o] = unit * c[p][o] + sum over the kept weights of channel o of q[p][k] * residual, o < channels, with the
  // codes q that transpose_rows left in `masks`; they serve all panels of the same rows.
  void (*add_kept)(const std::uint64_t* masks, std::size_t depth, unsigned planes, std::size_t rows, const Kept& kept,
                   int unit, std::size_t channels, std::int32_t* c, std::size_t ldc);

  // Look-up: for a run of codes in planes, table_bytes(words) bytes: 8 * words tables of 16 sums of the four codes of a
  // group, then the sum of all codes as int32:
  //   tables[g][j] = sum_{i < 4} (bit i of j) * q[4 g + i]
  void (*build_tables)(const std::uint32_t* codes, std::size_t words, unsigned planes, std::uint8_t* tables);
  // c[p][o] = sum_k q[p][k] * level[o][k], exact in int32, o < 32 * blocks; the tables of run t of row p are at
  // pointers[p * taps + t]; rows <= kMaxRows. With u the entries that the signs look up, formed as
  //   sum_g 2 u - sum_k q,  with second signs  sum_g (u + second u) - sum_k q
  void (*conv_lookup)(const std::uint8_t* const* pointers, std::size_t taps, std::size_t words, unsigned planes,
                      std::size_t rows, const LookupWeights& weights, std::size_t blocks, std::int32_t* c,
                      std::size_t ldc);

  // Codes in planes of bits to bytes, and floats to codes in planes (the rule is Range's), n channels.
  void (*unpack_codes)(const std::uint32_t* codes, unsigned planes, std::size_t n, std::uint8_t* out);
  void (*pack_codes)(const float* x, std::size_t n, Format format, Range range, std::uint32_t* codes);

  // Depthwise, with the channels ch of the tile and lines[row * height + y][x] the pixel (all its channels) in column x
  // of the input line that line y of the kernel meets:
  //   c[row * pixels + p][ch - first] = sum_y sum_x lines[row * height + y][p * stride + x * dilation][ch]
  //                                                 * w[(y * width + x) * w_stride + ch]
  void (*depthwise_u8s8)(const std::uint8_t* const* const* lines, const DepthwiseTile& tile, const std::int8_t* w,
                         std::int32_t* c, std::size_t ldc);
  void (*depthwise_f32)(const float* const* const* lines, const DepthwiseTile& tile, const float* w, float* c,
                        std::size_t ldc);

  // The epilogue over a tile of accumulators, n channels wide.
  void (*store_i32)(const std::int32_t* c, std::size_t ldc, std::size_t rows, std::size_t n, const Epilogue& e);
  void (*store_f32)(const float* c, std::size_t ldc, std::size_t rows, std::size_t n, const Epilogue& e);

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

  // out[i] = (x[i] - mean) / std
  void (*normalise)(const float* x, std::size_t n, float mean, float std, float* out);
  // Channels that lie `plane` elements apart become pixels of n: out[channels * x + ch] = in[ch * plane + x], bytes by
  // tables of 256, out[channels * x + ch] = tables[256 * ch + in[ch * plane + x]].
  void (*interleave_f32)(const float* in, std::size_t plane, std::size_t n, std::size_t channels, float* out);
  void (*look_up_u8)(const std::uint8_t* tables, const std::uint8_t* in, std::size_t plane, std::size_t n,
                     std::size_t channels, std::uint8_t* out);
  void (*look_up_f32)(const float* tables, const std::uint8_t* in, std::size_t plane, std::size_t n,
                      std::size_t channels, float* out);
};

// Best first; the last one is portable and runs everywhere.
extern const KernelTable* const kLevels[];
extern const std::size_t kLevelCount;

// The level that BITPLAN_ISA names, or the best that this machine supports; chosen once. Throws std::runtime_error
// where the variable names a level that is unknown or that this machine lacks.
const KernelTable& active_kernels();

}  // namespace bitplan
