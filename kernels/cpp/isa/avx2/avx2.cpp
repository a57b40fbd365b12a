// AVX2, FMA, F16C and BMI2.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "../levels.h"

namespace bitplan {
namespace avx2 {
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
#include "../generic/depthwise_by_channel.inc"
#include "depthwise.inc"
#include "../generic/depthwise.inc"
#include "../x86/transpose_bytes.inc"
#include "../generic/sparse.inc"
#include "../generic/table.inc"
// clang-format on
}  // namespace
}  // namespace avx2

constinit const KernelTable kAvx2Kernels = avx2::table("avx2", has_avx2);

}  // namespace bitplan
