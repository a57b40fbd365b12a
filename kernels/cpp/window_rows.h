// The rows of a convolution (output pixels, counted through all images) and where their windows lie in the input.
#pragma once

#include <algorithm>
#include <cstddef>

#include "step.h"

namespace bitplan {

class WindowRows {
 public:
  // Of linear layers, every row is a pixel of its own. `margin`: lines at the bottom of an image that count as border.
  WindowRows(const Value& in, const Value& out, const Window& window, std::size_t margin = 0)
      : window_(window),
        height_(in.image() ? in.shape[1] : 1),
        width_(in.image() ? in.shape[2] : in.rows()),
        out_height_(out.image() ? out.shape[1] : 1),
        out_width_(out.image() ? out.shape[2] : out.rows()) {
    inside_y_ = inside(0, std::ptrdiff_t(height_) - std::ptrdiff_t(margin), out_height_);
    inside_x_ = inside(1, std::ptrdiff_t(width_), out_width_);
  }

  std::size_t height() const { return height_; }
  std::size_t width() const { return width_; }

  // Visits rows [first, first + count) in order, as
  //   on_inside(n, pixel)          n rows whose windows lie inside of the image: the first's begins at that pixel of
  //   the
  //                                input (counted through all images), each next one `stride[1]` pixels further
  //   on_border(image, top, left)  one row whose window begins at that line and column of an image
  template <typename OnInside, typename OnBorder>
  void visit(std::size_t first, std::size_t count, const OnInside& on_inside, const OnBorder& on_border) const {
    std::size_t x = first % out_width_, y = first / out_width_ % out_height_, image = first / out_width_ / out_height_;
    while (count > 0) {
      const auto top = std::ptrdiff_t(y * window_.stride[0]) - std::ptrdiff_t(window_.padding[0]);
      const auto left = std::ptrdiff_t(x * window_.stride[1]) - std::ptrdiff_t(window_.padding[2]);
      std::size_t n = 1;
      if (y - inside_y_.first < inside_y_.count && x - inside_x_.first < inside_x_.count) {
        n = std::min(count, inside_x_.first + inside_x_.count - x);
        on_inside(n, (image * height_ + std::size_t(top)) * width_ + std::size_t(left));
      } else {
        on_border(image, top, left);
      }
      count -= n;
      x += n;
      if (x < out_width_) continue;
      x = 0;
      if (++y < out_height_) continue;
      y = 0;
      ++image;
    }
  }

 private:
  struct Inside {
    std::size_t first, count;
  };
  // The output positions along an axis whose windows lie within [0, size).
  Inside inside(std::size_t axis, std::ptrdiff_t size, std::size_t outputs) const {
    const auto stride = std::ptrdiff_t(window_.stride[axis]), before = std::ptrdiff_t(window_.padding[2 * axis]);
    const auto reach = std::ptrdiff_t(window_.kernel[axis] - 1) * std::ptrdiff_t(window_.dilation[axis]);
    const std::ptrdiff_t first = (before + stride - 1) / stride, room = size - 1 - reach + before;
    const std::ptrdiff_t end = room < 0 ? 0 : std::min(room / stride + 1, std::ptrdiff_t(outputs));
    return {std::size_t(first), std::size_t(std::max(end - first, std::ptrdiff_t(0)))};
  }

  Window window_;
  std::size_t height_, width_, out_height_, out_width_;
  Inside inside_y_, inside_x_;
};

}  // namespace bitplan
