// Linear layers: the rows are the features as they lie in the arena.
#include "gemm_step.h"

namespace bitplan {
namespace {

class LinearStep : public GemmStep {
 public:
  using GemmStep::GemmStep;

 protected:
  bool direct() const override { return true; }
  void pack(const Call&, std::size_t, std::size_t, std::size_t, std::uint8_t*) const override {}
};

}  // namespace

std::unique_ptr<Step> make_linear(const Node& node, const std::vector<Value>& inputs, const Value& out,
                                  const KernelTable& kernels, std::size_t& resident_bytes) {
  Layer layer = prepare_layer(node, inputs[0].range, kernels);
  resident_bytes += layer.resident_bytes();
  return std::make_unique<LinearStep>(std::move(layer), node, inputs, out);
}

}  // namespace bitplan
