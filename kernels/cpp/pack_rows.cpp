#include "pack_rows.h"

#include <algorithm>
#include <cstring>

#include "copy.h"

namespace bitplan {
namespace {

// Vectors of 16 bytes that hold a line of the kernel, where these are few.
constexpr std::size_t kMostVectors = 2;

std::size_t vectors_of(std::size_t line) { return (line + 15) / 16; }

// Copies of `rows` rows of lines that hold kVectors vectors, `lines` per row (kLines, where that is not 0).
struct LineCopy {
  const std::uint8_t* from;
  std::size_t from_line, from_row;
  std::uint8_t* to;
  std::size_t to_line, to_row, lines, rows;

  template <std::size_t kVectors, std::size_t kLines>
  void run() const {
    const std::size_t count = kLines > 0 ? kLines : lines, last = count - 1;
    const std::uint8_t* row_from = from;
    std::uint8_t* row_to = to;
    for (std::size_t row = 0; row < rows; ++row, row_from += from_row, row_to += to_row) {
      const std::uint8_t* source = row_from;
      std::uint8_t* target = row_to;
#pragma GCC unroll 8
      for (std::size_t line = 0; line < last; ++line, source += from_line, target += to_line)
        std::memcpy(target, source, 16 * kVectors);
      std::memcpy(target, source, 16 * kVectors);
    }
  }

  template <std::size_t kVectors>
  void run_any() const {
    if (lines == 3) return run<kVectors, 3>();
    if (lines == 7) return run<kVectors, 7>();
    run<kVectors, 0>();
  }
};

}  // namespace

// Whole vectors may read behind a line, but should not behind the image: so its last line counts as border.
RowPacker::RowPacker(const Value& in, const Value& out, const Window& window, std::size_t groups, std::size_t element,
                     std::size_t row_bytes)
    : window_(window),
      rows_(in, out, window, 1),
      pixel_(in.channels() * element),
      part_(pixel_ / groups),
      line_(window.kernel[1] * part_),
      row_(row_bytes),
      contiguous_(groups == 1 && window.dilation[1] == 1) {}

void RowPacker::pack(const std::uint8_t* images, int padding, std::size_t group, std::size_t first, std::size_t count,
                     std::uint8_t* target) const {
  const std::size_t width = rows_.width(), height = rows_.height(), stride = window_.stride[1];
  const auto at_border = [&](std::size_t image, std::ptrdiff_t top, std::ptrdiff_t left) {
    pack_at_border(images + image * height * width * pixel_ + group * part_, padding, std::size_t(top),
                   std::size_t(left), target);
    target += row_;
  };
  const auto inside = [&](std::size_t n, std::size_t pixel) {
    if (contiguous_) {
      pack_inside(images + pixel * pixel_, n, target);
      target += n * row_;
      return;
    }
    for (std::size_t i = 0; i < n; ++i, pixel += stride)
      at_border(pixel / (height * width), std::ptrdiff_t(pixel / width % height), std::ptrdiff_t(pixel % width));
  };
  rows_.visit(first, count, inside, at_border);
}

// Short lines are copied in whole vectors: what is too much is overwritten by the next line, and behind the last line
// either by the next row or it meets zero weights.
void RowPacker::pack_inside(const std::uint8_t* corner, std::size_t count, std::uint8_t* target) const {
  const std::size_t from_line = window_.dilation[0] * rows_.width() * pixel_, from_row = window_.stride[1] * pixel_;
  const std::size_t lines = window_.kernel[0];
  const LineCopy copy{corner, from_line, from_row, target, line_, row_, lines, count};
  if (vectors_of(line_) == 1) return copy.run_any<1>();
  if (vectors_of(line_) <= kMostVectors) return copy.run_any<kMostVectors>();
  for (std::size_t row = 0; row < count; ++row, corner += from_row, target += row_)
    for (std::size_t line = 0; line < lines; ++line)
      copy_bytes(target + line * line_, corner + line * from_line, line_);
}

// Lines and columns outside of the image come as numbers beyond its size, negative ones too.
void RowPacker::pack_at_border(const std::uint8_t* image, int padding, std::size_t top, std::size_t left,
                               std::uint8_t* target) const {
  // Columns [begin, end) of the kernel lie inside.
  const auto width = std::ptrdiff_t(rows_.width()), columns = std::ptrdiff_t(window_.kernel[1]);
  const std::ptrdiff_t begin = std::clamp<std::ptrdiff_t>(-std::ptrdiff_t(left), 0, columns);
  const std::ptrdiff_t end = std::clamp<std::ptrdiff_t>(width - std::ptrdiff_t(left), begin, columns);
  for (std::size_t ky = 0; ky < window_.kernel[0]; ++ky, target += line_) {
    const std::size_t y = top + ky * window_.dilation[0];
    if (y >= rows_.height()) {
      std::memset(target, padding, line_);
      continue;
    }
    const std::uint8_t* const source = image + y * rows_.width() * pixel_;
    if (contiguous_) {
      if (begin > 0) std::memset(target, padding, std::size_t(begin) * pixel_);
      if (begin < end)
        copy_bytes(target + std::size_t(begin) * pixel_, source + (left + std::size_t(begin)) * pixel_,
                   std::size_t(end - begin) * pixel_);
      if (end < columns) std::memset(target + std::size_t(end) * pixel_, padding, std::size_t(columns - end) * pixel_);
      continue;
    }
    for (std::size_t kx = 0; kx < window_.kernel[1]; ++kx) {
      const std::size_t x = left + kx * window_.dilation[1];
      if (x >= rows_.width())
        std::memset(target + kx * part_, padding, part_);
      else
        copy_bytes(target + kx * part_, source + x * pixel_, part_);
    }
  }
}

}  // namespace bitplan
