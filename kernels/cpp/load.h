// An artifact from a file.
#pragma once

#include <memory>
#include <string>

#include "runtime.h"

namespace bitplan {

// Throws std::system_error where the file cannot be read, else what Runtime throws; errors of the file name its path.
std::unique_ptr<Runtime> load_runtime(const std::string& path, std::size_t threads, const std::string& isa);

}  // namespace bitplan
