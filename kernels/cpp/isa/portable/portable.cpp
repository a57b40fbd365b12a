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
#include "../generic/interleave.inc"
#include "../generic/look_up.inc"
#include "depthwise.inc"
#include "../generic/depthwise.inc"
#include "../generic/gemv.inc"
#include "../generic/gemv_decoded.inc"
#include "../generic/run_words.inc"
#include "bits.inc"
#include "../generic/kept_lanes.inc"
#include "../generic/kept.inc"
#include "../generic/kept_scattered.inc"
#include "../generic/lookup.inc"
#include "../generic/word_codes.inc"
#include "../generic/planes.inc"
#include "../generic/table.inc"
// clang-format on
}  // namespace
}  // namespace portable

constinit const KernelTable kPortableKernels = portable::table("portable", has_nothing_special);

}  // namespace bitplan
