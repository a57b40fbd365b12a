// Which pixels of its input a row of a convolution meets, as pointers: no copies are made, padding is one shared run.
#pragma once

#include <array>
#include <cstddef>
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
          for (std::size_t ky = 0; ky < window_.kernel[0]; ++ky) {
            const std::size_t y = std::size_t(top) + ky * window_.dilation[0];  // beyond any height where negative
            for (std::size_t kx = 0; kx < window_.kernel[1]; ++kx) {
              const std::size_t x = std::size_t(left) + kx * window_.dilation[1];
              const bool inside = y < rows_.height() && x < rows_.width();
              *pointers++ = inside ? base + ((image * rows_.height() + y) * rows_.width() + x) * pitch : padding;
            }
          }
        });
  }

 private:
  template <typename T, std::size_t kTaps>
  void point_inside(const T* pixel, std::size_t step, std::size_t pitch, std::size_t n, const T** pointers) const {
    if constexpr (kTaps > 0) {
      std::array<std::size_t, kTaps> offsets;
      for (std::size_t tap = 0; tap < kTaps; ++tap) offsets[tap] = offsets_[tap] * pitch;
      for (std::size_t row = 0; row < n; ++row, pixel += step, pointers += kTaps)
        for (std::size_t tap = 0; tap < kTaps; ++tap) pointers[tap] = pixel + offsets[tap];
    } else {
      for (std::size_t row = 0; row < n; ++row, pixel += step)
        for (const std::size_t offset : offsets_) *pointers++ = pixel + offset * pitch;
    }
  }

  Window window_;
  WindowRows rows_;
  std::vector<std::size_t> offsets_;  // of the taps from the window's first pixel, in pixels
};

}  // namespace bitplan
