// How the rules of a file are written down.
#pragma once

#include <cmath>
#include <string>

#include "error.h"

namespace bitplan {

inline void require(bool holds, const std::string& otherwise) {
  if (!holds) throw FormatError(otherwise);
}

inline float finite(float value, const char* what) {
  if (!std::isfinite(value)) throw FormatError(text(what, " is ", value, "; expected a finite number"));
  return value;
}

}  // namespace bitplan
