// The rule of shapes: what a node computes, and the shapes of its inputs, decide the shape of its value.
#pragma once

#include <vector>

#include "artifact.h"

namespace bitplan {

// What the shape of `node` must be, from the shapes of its inputs; fills in Weight::shape of a layer. Throws
// FormatError where the inputs are too few, too many or do not fit the operation.
Shape expected_shape(Node& node, const std::vector<const Shape*>& in);

}  // namespace bitplan
