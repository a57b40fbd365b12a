// AVX-512 F, BW, VL, DQ, VNNI, VBMI and VPOPCNTDQ, GFNI.

// GCC 12 takes the deliberately undefined operands inside its own header for mistakes.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop

#include <cstddef>
#include <cstdint>
#include <utility>

#include "../levels.h"

namespace bitplan {
namespace avx512vnni {
namespace {
// clang-format off
#include "simd.inc"
#include "products.inc"
#include "../generic/lanes.inc"
#include "../generic/gemm.inc"
#include "../generic/conv_bytes.inc"
#include "../generic/gemm_bytes.inc"
#include "../generic/codes.inc"
#include "decode.inc"
#include "../generic/decode.inc"
#include "../generic/activation.inc"
#include "../generic/pack.inc"
#include "../generic/epilogue.inc"
#include "../generic/stored_bytes.inc"
#include "../generic/elementwise.inc"
#include "../generic/interleave.inc"
#include "look_up.inc"
#include "depthwise.inc"
#include "../generic/depthwise_bytes.inc"
#include "../generic/depthwise.inc"
#include "../generic/gemv.inc"
#include "gemv.inc"
#include "../generic/gemv_fused.inc"
#include "../generic/run_words.inc"
#include "bits.inc"
#include "kept_lanes.inc"
#include "../generic/kept.inc"
#include "../generic/kept_scattered.inc"
#include "../generic/lookup_tiles.inc"
#include "lookup.inc"
#include "word_codes.inc"
#include "../generic/planes.inc"
#include "../generic/table.inc"
// clang-format on
}  // namespace
}  // namespace avx512vnni

constinit const KernelTable kAvx512VnniKernels =
    avx512vnni::table("avx512vnni", has_avx512vnni, avx512vnni::conv_u8s8_store);

}  // namespace bitplan
