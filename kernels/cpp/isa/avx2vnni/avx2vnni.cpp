// AVX2 with AVX-VNNI: AVX2 but for how bytes are multiplied.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "../levels.h"

namespace bitplan {
namespace avx2vnni {
namespace {
// clang-format off
#include "../avx2/simd.inc"
#include "products.inc"
#include "../generic/lanes.inc"
#include "../generic/gemm.inc"
#include "../generic/conv_bytes.inc"
#include "../generic/gemm_bytes.inc"
#include "../generic/codes.inc"
#include "../avx2/decode.inc"
#include "../generic/decode.inc"
#include "../generic/activation.inc"
#include "../generic/pack.inc"
#include "../generic/epilogue.inc"
#include "../generic/stored_bytes.inc"
#include "../generic/elementwise.inc"
#include "../generic/interleave.inc"
#include "../generic/look_up.inc"
#include "depthwise.inc"
#include "../generic/depthwise_bytes.inc"
#include "../generic/depthwise.inc"
#include "../generic/gemv.inc"
#include "../avx2/gemv.inc"
#include "../generic/gemv_fused.inc"
#include "../generic/run_words.inc"
#include "../avx2/bits.inc"
#include "../generic/kept_lanes.inc"
#include "../generic/kept.inc"
#include "../generic/kept_scattered.inc"
#include "../generic/lookup_tiles.inc"
#include "../avx2/lookup.inc"
#include "../avx2/word_codes.inc"
#include "../generic/planes.inc"
#include "../generic/table.inc"
// clang-format on
}  // namespace
}  // namespace avx2vnni

constinit const KernelTable kAvx2VnniKernels = avx2vnni::table("avx2vnni", has_avx2vnni, avx2vnni::conv_u8s8_store);

}  // namespace bitplan
