#include "mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace bitplan {

MappedFile::MappedFile(const std::string& path) {
  const auto fail = [&path](int error) { throw std::system_error(error, std::generic_category(), path); };
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe without a writer must not block
  if (file < 0) fail(errno);
  struct stat status{};
  int error = fstat(file, &status) != 0 ? errno
              : S_ISDIR(status.st_mode) ? EISDIR
              : S_ISREG(status.st_mode) ? 0
                                        : EINVAL;
  if (error == 0 && status.st_size > 0) {  // an empty file cannot be mapped
    void* const data = mmap(nullptr, std::size_t(status.st_size), PROT_READ, MAP_PRIVATE, file, 0);
    if (data == MAP_FAILED) {
      error = errno;
    } else {
      data_ = static_cast<const std::uint8_t*>(data);
      size_ = std::size_t(status.st_size);
    }
  }
  close(file);
  if (error != 0) fail(error);
}

MappedFile::~MappedFile() {
  if (data_) munmap(const_cast<std::uint8_t*>(data_), size_);
}

}  // namespace bitplan
