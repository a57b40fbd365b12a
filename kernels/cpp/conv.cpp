// Convolution and linear layers: the step that runs a layer on its kernel.
#include <utility>

#include "gemm_step.h"
#include "sign_step.h"

namespace bitplan {
namespace {

std::unique_ptr<Step> make_layer(const Node& node, const std::vector<Value>& inputs, const Outputs& outputs,
                                 const KernelTable& kernels, std::size_t& resident_bytes) {
  Layer layer = prepare_layer(node, inputs[0].range, kernels);
  resident_bytes += layer.resident_bytes();
  if (layer.kernel == Kernel::bits || layer.kernel == Kernel::lookup)
    return std::make_unique<SignStep>(std::move(layer), node, inputs, outputs, kernels);
  return std::make_unique<GemmStep>(std::move(layer), node, inputs, outputs);
}

}  // namespace

std::unique_ptr<Step> make_conv2d(const Node& node, const std::vector<Value>& inputs, const Outputs& outputs,
                                  const KernelTable& kernels, std::size_t& resident_bytes) {
  return make_layer(node, inputs, outputs, kernels, resident_bytes);
}

std::unique_ptr<Step> make_linear(const Node& node, const std::vector<Value>& inputs, const Outputs& outputs,
                                  const KernelTable& kernels, std::size_t& resident_bytes) {
  return make_layer(node, inputs, outputs, kernels, resident_bytes);
}

}  // namespace bitplan
