// Runs everywhere: no instructions beyond the architecture's baseline, no intrinsics.
#include <cstddef>
#include <cstdint>
#include <utility>

#include "../levels.h"

namespace bitplan {
namespace portable {
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
#include "../generic/elementwise.inc"
#include "../generic/depthwise_by_channel.inc"
#include "../generic/depthwise.inc"
#include "../generic/gemv.inc"
#include "../generic/gemv_decoded.inc"
#include "../generic/run_words.inc"
#include "bits.inc"
#include "../generic/kept_lanes.inc"
#include "../generic/kept.inc"
#include "../generic/lookup.inc"
#include "../generic/word_codes.inc"
#include "../generic/planes.inc"

void depthwise_u8s8(const std::uint8_t* const* pointers, std::size_t pixels, std::size_t taps, std::size_t channels,
                    const std::int8_t* w, std::int32_t* c, std::size_t ldc) {
  depthwise_by_channel(pointers, pixels, taps, channels, w, c, ldc);
}

#include "../generic/table.inc"
// clang-format on
}  // namespace
}  // namespace portable

constinit const KernelTable kPortableKernels = portable::table("portable", has_nothing_special);

}  // namespace bitplan
