// AVX-512 VNNI with AMX-INT8: AVX-512 VNNI but for how bytes are multiplied.

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
namespace amx {
namespace {
// clang-format off
#include "../avx512vnni/simd.inc"
#include "../avx512vnni/products.inc"
#include "../generic/lanes.inc"
#include "../generic/gemm.inc"
#ifndef BITPLAN_EMULATED_TILES
#include "tiles.inc"
#endif
#include "conv_bytes.inc"
#include "../generic/gemm_bytes.inc"
#include "../generic/codes.inc"
#include "../avx512vnni/decode.inc"
#include "../generic/decode.inc"
#include "../generic/activation.inc"
#include "../generic/pack.inc"
#include "../generic/epilogue.inc"
#include "../generic/elementwise.inc"
#include "../generic/interleave.inc"
#include "../avx512vnni/look_up.inc"
#include "../avx512vnni/depthwise.inc"
#include "../generic/depthwise_bytes.inc"
#include "../generic/depthwise.inc"
#include "../generic/gemv.inc"
#include "../avx512vnni/gemv.inc"
#include "../generic/gemv_fused.inc"
#include "../generic/run_words.inc"
#include "../avx512vnni/bits.inc"
#include "../avx512vnni/kept_lanes.inc"
#include "../generic/kept.inc"
#include "../generic/kept_scattered.inc"
#include "../generic/lookup_tiles.inc"
#include "../avx512vnni/lookup.inc"
#include "../avx512vnni/word_codes.inc"
#include "../generic/planes.inc"
#include "../generic/table.inc"
// clang-format on
}  // namespace
}  // namespace amx

constinit const KernelTable kAmxKernels = amx::table("amx", has_amx);

}  // namespace bitplan
