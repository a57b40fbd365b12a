// Uninitialised memory on a cache line, with a line behind its end that vector loads may touch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace bitplan {

constexpr std::size_t kAlignment = 64;

constexpr std::size_t round_up(std::size_t n, std::size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // Throws std::bad_alloc.
  explicit AlignedBuffer(std::size_t bytes)
      : bytes_(bytes),
        data_(static_cast<std::uint8_t*>(std::aligned_alloc(kAlignment, round_up(bytes, kAlignment) + kAlignment))) {
    if (!data_) throw std::bad_alloc();
  }

  std::uint8_t* data() const { return data_.get(); }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_.get());
  }
  std::size_t bytes() const { return bytes_; }

 private:
  struct Free {
    void operator()(std::uint8_t* data) const { std::free(data); }
  };
  std::size_t bytes_ = 0;
  std::unique_ptr<std::uint8_t, Free> data_;
};

}  // namespace bitplan
