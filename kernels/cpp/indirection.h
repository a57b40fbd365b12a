// Which pixels of its input a row of a convolution meets, as pointers: no copies are made, padding is one shared run.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "window_rows.h"

namespace bitplan {

class Indirection {
 public:
  Indirection(const Value& in, const Value& out, const Window& window) : window_(window), rows_(in, out, window) {
    for (std::size_t y = 0; y < window.kernel[0]; ++y)
      for (std::size_t x = 0; x < window.kernel[1]; ++x)
        offsets_.push_back(y * window.dilation[0] * rows_.width() + x * window.dilation[1]);
  }

  std::size_t taps() const { return offsets_.size(); }
  // Whether row i meets pixel i and nothing else.
  bool identity() const {
    return taps() == 1 && window_.stride == std::array{1u, 1u} && window_.padding == std::array{0u, 0u, 0u, 0u};
  }

  // pointers[(row - first) * taps + tap] for rows [first, first + count): pixel i of the input is at base + i * pitch,
  // what lies outside of the image at `padding`.
  template <typename T>
  void point(const T* base, std::size_t pitch, const T* padding, std::size_t first, std::size_t count,
             const T** pointers) const {
    rows_.visit(
        first, count,
        [&](std::size_t n, std::size_t pixel) {
          const std::size_t step = window_.stride[1] * pitch;
          // 3 x 3 and 1 x 1 in registers.
          if (taps() == 9)
            point_inside<T, 9>(base + pixel * pitch, step, pitch, n, pointers);
          else if (taps() == 1)
            point_inside<T, 1>(base + pixel * pitch, step, pitch, n, pointers);
          else
            point_inside<T, 0>(base + pixel * pitch, step, pitch, n, pointers);
          pointers += n * taps();
        },
        [&](std::size_t image, std::ptrdiff_t top, std::ptrdiff_t left) {
          const T* const corner = base + image * rows_.height() * rows_.width() * pitch;
          if (window_.kernel[1] == 3)
            point_at_border<T, 3>(corner, pitch, padding, std::size_t(top), std::size_t(left), pointers);
          else
            point_at_border<T, 0>(corner, pitch, padding, std::size_t(top), std::size_t(left), pointers);
          pointers += taps();
        });
  }

 private:
  // Addresses side by side, as they are added and stored.
  typedef std::uintptr_t Pair __attribute__((vector_size(2 * sizeof(std::uintptr_t))));

  template <typename T, std::size_t kTaps>
  void point_inside(const T* pixel, std::size_t step, std::size_t pitch, std::size_t n, const T** pointers) const {
    if constexpr (kTaps > 0) {
      Pair offsets[(kTaps + 1) / 2] = {};
      for (std::size_t tap = 0; tap < kTaps; ++tap) offsets[tap / 2][tap % 2] = offsets_[tap] * pitch * sizeof(T);
      const std::uintptr_t stride = step * sizeof(T);
      std::uintptr_t first = reinterpret_cast<std::uintptr_t>(pixel);
      for (std::size_t row = 0; row < n; ++row, first += stride, pointers += kTaps) {
        const Pair both = {first, first};
#pragma GCC unroll 8
        for (std::size_t i = 0; i < kTaps / 2; ++i) {
          const Pair sum = both + offsets[i];
          std::memcpy(pointers + 2 * i, &sum, sizeof(sum));
        }
        if constexpr (kTaps % 2 == 1) pointers[kTaps - 1] = reinterpret_cast<const T*>(first + offsets[kTaps / 2][0]);
      }
    } else {
      for (std::size_t row = 0; row < n; ++row, pixel += step)
        for (const std::size_t offset : offsets_) *pointers++ = pixel + offset * pitch;
    }
  }

  // Lines and columns outside of the image come as numbers beyond its size, negative ones too. kWidth: that of the
  // kernel, or 0.
  template <typename T, std::size_t kWidth>
  void point_at_border(const T* image, std::size_t pitch, const T* padding, std::size_t top, std::size_t left,
                       const T** pointers) const {
    const std::size_t kernel_width = kWidth > 0 ? kWidth : window_.kernel[1], dilation = window_.dilation[1];
    const std::size_t kernel_height = window_.kernel[0], height = rows_.height(), width = rows_.width();
    for (std::size_t ky = 0; ky < kernel_height; ++ky, pointers += kernel_width) {
      const std::size_t y = top + ky * window_.dilation[0];
      const T* const line = image + y * width * pitch;
      const std::size_t end = y < height ? width : 0;
#pragma GCC unroll 4
      for (std::size_t kx = 0; kx < kernel_width; ++kx) {
        const std::size_t x = left + kx * dilation;
        pointers[kx] = x < end ? line + x * pitch : padding;
      }
    }
  }

  Window window_;
  WindowRows rows_;
  std::vector<std::size_t> offsets_;  // of the taps from the window's first pixel, in pixels
};

}  // namespace bitplan
