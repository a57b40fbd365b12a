// AVX-512 F, BW, VL, DQ, VNNI and VBMI.

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

#include "../levels.h"

namespace bitplan {
namespace avx512vnni {
namespace {
// clang-format off
#include "simd.inc"
#include "products.inc"
#include "../generic/lanes.inc"
#include "../generic/gemm.inc"
#include "../generic/codes.inc"
#include "decode.inc"
#include "../generic/decode.inc"
#include "../generic/activation.inc"
#include "../generic/epilogue.inc"
#include "../generic/elementwise.inc"
#include "depthwise.inc"
#include "../generic/depthwise.inc"
#include "../x86/transpose_bytes.inc"
#include "../generic/sparse.inc"
#include "../generic/table.inc"
// clang-format on
}  // namespace
}  // namespace avx512vnni

constinit const KernelTable kAvx512VnniKernels = avx512vnni::table("avx512vnni", has_avx512vnni);

}  // namespace bitplan
