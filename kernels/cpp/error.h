// The two errors a caller can cause, and how their texts are put together.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace bitplan {

// The file is damaged, of an unknown version, or no artifact. Becomes bitplan.errors.FileFormatError.
struct FormatError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The arrays of a call do not fit the network. Becomes bitplan.errors.DataError.
struct InputError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// An option (ISA level, thread count) cannot be meant. Becomes bitplan.errors.UsageError.
struct OptionError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <typename... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream stream;
  (stream << ... << parts);
  return stream.str();
}

}  // namespace bitplan
