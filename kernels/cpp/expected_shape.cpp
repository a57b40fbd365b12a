#include "expected_shape.h"

#include <algorithm>

#include "require.h"

namespace bitplan {
namespace {

void require_inputs(const Node& node, std::size_t least, std::size_t most) {
  const std::size_t found = node.inputs.size();
  require(found >= least && found <= most,
          text("it has ", found, " inputs; expected ", least, most == least ? "" : text(" to ", most)));
}

void require_image(const Shape& shape) {
  require(shape.size() == 3,
          text("it reads a value of shape ", to_string(shape), "; expected (channels, height, width)"));
}

// Height and width that a window leaves of an image.
Shape windowed(std::uint32_t channels, const Shape& in, const Window& window) {
  Shape out{channels};
  for (std::size_t axis = 0; axis < 2; ++axis) {
    require(window.kernel[axis] > 0 && window.stride[axis] > 0 && window.dilation[axis] > 0,
            text("kernel ", window.kernel[axis], ", stride ", window.stride[axis], " and dilation ",
                 window.dilation[axis], " must be at least 1"));
    const std::uint64_t extent = std::uint64_t(window.dilation[axis]) * (window.kernel[axis] - 1) + 1;
    const std::uint64_t size = std::uint64_t(in[1 + axis]) + window.padding[2 * axis] + window.padding[2 * axis + 1];
    require(size >= extent, text("a window of ", extent, " does not fit into the padded size ", size));
    out.push_back(std::uint32_t((size - extent) / window.stride[axis] + 1));
  }
  return out;
}

}  // namespace

Shape expected_shape(Node& node, const std::vector<const Shape*>& in) {
  Shape shape = in.empty() ? node.shape : *in[0];
  switch (node.op) {
    case Op::input:
      require_inputs(node, 0, 0);
      return shape;
    case Op::conv2d: {
      require_inputs(node, 1, 2);
      require_image(shape);
      require(node.shape.size() == 3, "its value is no image");
      const std::uint32_t out = node.shape[0];
      require(node.groups > 0 && shape[0] % node.groups == 0 && out % node.groups == 0,
              text(node.groups, " groups do not divide ", shape[0], " input and ", out, " output channels"));
      node.weight.shape = {out, shape[0], node.window.kernel[0], node.window.kernel[1], node.groups};
      return windowed(out, shape, node.window);
    }
    case Op::linear:
      require_inputs(node, 1, 2);
      require(shape.size() != 3, "it reads an image; a linear layer needs a vector or rows of features");
      node.weight.shape = {node.shape.back(), shape.back(), 1, 1, 1};
      shape.back() = node.shape.back();
      return shape;
    case Op::scale_shift:
    case Op::activate:
    case Op::softmax:
      require_inputs(node, 1, 1);
      return shape;
    case Op::add:
    case Op::mul: {
      require_inputs(node, 2, 2);
      const Shape& other = *in[1];
      require(other == shape || (shape.size() == 3 && other == Shape{shape[0], 1, 1}),
              text("shapes ", to_string(shape), " and ", to_string(other), " do not go together"));
      return shape;
    }
    case Op::concat: {
      require_inputs(node, 1, 255);
      std::uint64_t joined = 0;
      for (const Shape* part : in) {
        require(part->size() == shape.size() && std::equal(part->begin() + 1, part->end(), shape.begin() + 1),
                text("shapes ", to_string(shape), " and ", to_string(*part), " differ behind the first axis"));
        joined += part->front();
      }
      require(joined <= 0xFFFFFFFFu, "the joined axis is too long");
      shape[0] = std::uint32_t(joined);
      return shape;
    }
    case Op::max_pool:
    case Op::average_pool:
      require_inputs(node, 1, 1);
      require_image(shape);
      return windowed(shape[0], shape, node.window);
    case Op::mean:
      require_inputs(node, 1, 1);
      require_image(shape);
      return node.keep ? Shape{shape[0], 1, 1} : Shape{shape[0]};
    case Op::pad: {
      require_inputs(node, 1, 1);
      require_image(shape);
      const auto& [top, bottom, left, right] = node.window.padding;
      const std::uint64_t sizes[3] = {std::uint64_t(shape[0]) + node.pad_channels[0] + node.pad_channels[1],
                                      std::uint64_t(shape[1]) + top + bottom, std::uint64_t(shape[2]) + left + right};
      for (std::size_t axis = 0; axis < 3; ++axis) {
        require(sizes[axis] <= 0xFFFFFFFFu, "a padded axis is too long");
        shape[axis] = std::uint32_t(sizes[axis]);
      }
      return shape;
    }
    case Op::slice:
      require_inputs(node, 1, 1);
      require(node.shape.size() == shape.size(), "its value has another rank than its input");
      for (std::size_t axis = 0; axis < shape.size(); ++axis) {
        const auto [start, stop, step] = node.slices[axis];
        require(start < stop && stop <= shape[axis] && step > 0,
                text("slice ", start, ":", stop, ":", step, " does not fit axis ", axis, " of ", to_string(shape)));
        shape[axis] = (stop - start - 1) / step + 1;
      }
      return shape;
    case Op::reshape:
      require_inputs(node, 1, 1);
      require(element_count(shape) == element_count(node.shape),
              text("shapes ", to_string(shape), " and ", to_string(node.shape), " have different numbers of elements"));
      return node.shape;
    case Op::permute: {
      require_inputs(node, 1, 1);
      require(node.shape.size() == shape.size(), "its value has another rank than its input");
      Shape permuted;
      unsigned seen = 0;
      for (const std::uint8_t axis : node.order) {
        require(axis < shape.size() && !(seen >> axis & 1), "its order is no permutation of the axes");
        seen |= 1u << axis;
        permuted.push_back(shape[axis]);
      }
      return permuted;
    }
  }
  return shape;
}

}  // namespace bitplan
