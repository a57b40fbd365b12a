// The rows of a convolution as one pointer each: run t of a row is offsets[t] further on, the same for all rows. Small
// images are copied with the padding around them for that.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "step.h"
#include "window_rows.h"

namespace bitplan {

class ShiftedRows {
 public:
  // Of u8.
  ShiftedRows(const Value& in, const Value& out, const Window& window)
      : in_(in), window_(window), around_(surrounded(in, window)), rows_(around_, out, unpadded(window)) {
    for (std::size_t y = 0; y < window.kernel[0]; ++y)
      for (std::size_t x = 0; x < window.kernel[1]; ++x)
        offsets_.push_back((y * window.dilation[0] * rows_.width() + x * window.dilation[1]) * in.channels());
  }

  const std::size_t* offsets() const { return offsets_.data(); }
  // Whether the image has to be copied, and the bytes of the copy.
  bool padded() const { return window_.padding != std::array{0u, 0u, 0u, 0u}; }
  std::size_t padded_bytes() const { return around_.elements(); }

  // Copies the images with their surroundings to `to`, by lines.
  void surround(const Call& call, const std::uint8_t* from, int padding, std::uint8_t* to) const {
    const std::size_t height = rows_.height(), pixel = in_.channels(), bytes = rows_.width() * pixel;
    const std::size_t left = window_.padding[2] * pixel, inner = in_.shape[2] * pixel;
    const std::size_t lines = call.batch * height, parts = std::min(call.pool.threads(), lines);
    call.pool.run(parts, [&](std::size_t task, std::size_t) {
      for (std::size_t i = lines * task / parts; i < lines * (task + 1) / parts; ++i) {
        const std::size_t y = i % height - window_.padding[0];  // beyond the image also where negative
        std::uint8_t* const line = to + i * bytes;
        if (y >= in_.shape[1]) {
          std::memset(line, padding, bytes);
          continue;
        }
        std::memset(line, padding, left);
        std::memcpy(line + left, from + (i / height * in_.shape[1] + y) * inner, inner);
        std::memset(line + left + inner, padding, bytes - left - inner);
      }
    });
  }

  // pointers[row - first] for rows [first, first + count); `base`: where the images begin, with their surroundings.
  void point(const std::uint8_t* base, std::size_t first, std::size_t count, const std::uint8_t** pointers) const {
    const std::size_t pitch = in_.channels(), step = window_.stride[1] * pitch;
    rows_.visit(
        first, count,
        [&](std::size_t n, std::size_t pixel) {
          const std::uint8_t* at = base + pixel * pitch;
          for (std::size_t i = 0; i < n; ++i, at += step) *pointers++ = at;
        },
        [](std::size_t, std::ptrdiff_t, std::ptrdiff_t) {});
  }

 private:
  static Value surrounded(Value value, const Window& window) {
    if (!value.image()) return value;
    value.shape[1] += window.padding[0] + window.padding[1];
    value.shape[2] += window.padding[2] + window.padding[3];
    return value;
  }
  static Window unpadded(Window window) {
    window.padding = {};
    return window;
  }

  Value in_;
  Window window_;
  Value around_;
  WindowRows rows_;
  std::vector<std::size_t> offsets_;  // bytes
};

}  // namespace bitplan
