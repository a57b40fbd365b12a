// AVX2, FMA, F16C and BMI2.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "../levels.h"

namespace bitplan {
namespace avx2 {
namespace {
// clang-format off
#include "simd.inc"
#include "products.inc"
#include "../generic/lanes.inc"
#include "../generic/gemm.inc"
#include "conv_bytes.inc"
#include "../generic/gemm_bytes.inc"
#include "../generic/codes.inc"
#include "decode.inc"
#include "../generic/decode.inc"
#include "../generic/activation.inc"
#include "../generic/pack.inc"
#include "../generic/epilogue.inc"
#include "../generic/elementwise.inc"
#include "../generic/interleave.inc"
#include "../generic/look_up.inc"
#include "depthwise.inc"
#include "../generic/depthwise_bytes.inc"
#include "../generic/depthwise.inc"
#include "../generic/gemv.inc"
#include "gemv.inc"
#include "../generic/gemv_fused.inc"
#include "../generic/run_words.inc"
#include "bits.inc"
#include "../generic/kept_lanes.inc"
#include "../generic/kept.inc"
#include "kept_bytes.inc"
#include "../generic/lookup_tiles.inc"
#include "lookup.inc"
#include "word_codes.inc"
#include "../generic/planes.inc"
#include "../generic/table.inc"
// clang-format on
}  // namespace
}  // namespace avx2

constinit const KernelTable kAvx2Kernels = avx2::table("avx2", has_avx2);

}  // namespace bitplan
