// A file mapped read-only into memory.
#pragma once

#include <string>

#include "artifact.h"

namespace bitplan {

class MappedFile {
 public:
  // Throws std::system_error where the file cannot be opened or is not a regular file.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  Bytes bytes() const { return {data_, size_}; }

 private:
  const std::uint8_t* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace bitplan
