#include "load.h"

#include "error.h"
#include "mapped_file.h"

namespace bitplan {

std::unique_ptr<Runtime> load_runtime(const std::string& path, std::size_t threads, const std::string& isa) {
  const MappedFile file(path);
  try {
    return std::make_unique<Runtime>(file.bytes(), threads, isa);
  } catch (const FormatError& error) {
    throw FormatError(
        text(path, ": ", error.what(),
             "; copy the file again, write it anew (optimize realise), or use the bitplan that wrote it"));
  }
}

}  // namespace bitplan
