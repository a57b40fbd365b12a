// How the rules of a file are written down.
#pragma once

#include <string>

#include "error.h"

namespace bitplan {

inline void require(bool holds, const std::string& otherwise) {
  if (!holds) throw FormatError(otherwise);
}

}  // namespace bitplan
