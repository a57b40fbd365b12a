// Rows of a convolution as copies, [kernel height][kernel width][channel of the group]: for runs of channels that are
// too short, or no multiple of four bytes, to be addressed where they lie.
#pragma once

#include <cstddef>
#include <cstdint>

#include "window_rows.h"

namespace bitplan {

class RowPacker {
 public:
  // Of bytes or floats; `row_bytes`: from row to row, at least those of a row.
  RowPacker(const Value& in, const Value& out, const Window& window, std::size_t groups, std::size_t element,
            std::size_t row_bytes);

  // Rows [first, first + count) of a group; `images` is where the input's first pixel lies, `padding` the byte that
  // padding consists of. Writes up to 32 bytes behind the last row.
  void pack(const std::uint8_t* images, int padding, std::size_t group, std::size_t first, std::size_t count,
            std::uint8_t* target) const;

 private:
  void pack_inside(const std::uint8_t* corner, std::size_t count, std::uint8_t* target) const;
  void pack_at_border(const std::uint8_t* image, int padding, std::size_t top, std::size_t left,
                      std::uint8_t* target) const;

  Window window_;
  WindowRows rows_;
  std::size_t pixel_, part_;  // bytes of a pixel, and of a group's share of it
  std::size_t line_, row_;    // bytes of a line of the kernel, and from row to row
  bool contiguous_;           // a line of the kernel lies in the image as it is in a row
};

}  // namespace bitplan
