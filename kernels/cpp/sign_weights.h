// From codes to the planes of signs that the kernels bits and lookup read.
#pragma once

#include "layer.h"

namespace bitplan {

// Fills in the signs (bits: and offsets, for activations of `planes` bits) from the codes of `layer`, which has one
// group.
void pack_bit_weights(Layer& layer, const KernelTable& kernels, unsigned planes);
void pack_lookup_weights(Layer& layer, const KernelTable& kernels);

}  // namespace bitplan
