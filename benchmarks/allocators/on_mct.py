"""Sony's Model Compression Toolkit: post-training quantisation with mixed precision under a limit on weight memory.

Its weight memory counts the kernels at their bits and no biases or scales. Every budget is a call of its own; what it
measured of the layers does not depend on the budget and is kept from the first call.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from . import Unavailable
from .assignment import matched
from .sized_trace import with_fixed_sizes
from .subject import Subject

ABOUT = (
    "pytorch_post_training_quantization, mixed precision on the imx500 v1.0 description (2, 4, 8 bits for kernels, 8 for "
    "activations), defaults, all calibration images for sensitivities; it forbids no layer"
)
PACKAGES = ("model-compression-toolkit",)


def assign(subject: Subject, budgets: Sequence[float]) -> Iterator[tuple[float, dict[str, int]]]:
    try:
        import model_compression_toolkit as mct
    except ImportError as reason:
        raise Unavailable(
            f"model-compression-toolkit is not installed ({reason}); pip install 'bitplan[allocation]'"
        ) from None
    keep_sensitivities()
    config = mct.core.CoreConfig(
        mixed_precision_config=mct.core.MixedPrecisionQuantizationConfig(num_of_images=len(subject.images))
    )
    total = sum(subject.weight_counts.values())
    module = with_fixed_sizes(subject.module, subject.images[:1])

    def images() -> Iterator[list[Tensor]]:
        for batch, _ in subject.batches:
            yield [batch]

    for budget in budgets:
        torch.manual_seed(0)
        quantised, _ = mct.ptq.pytorch_post_training_quantization(
            copy.deepcopy(module),
            images,
            target_resource_utilization=mct.core.ResourceUtilization(weights_memory=total * budget / 8),
            core_config=config,
            target_platform_capabilities=mct.get_target_platform_capabilities("1.0", "imx500"),
        )
        yield budget, matched(bits_by_node(quantised), list(subject.layers), spellings)


def bits_by_node(quantised: nn.Module) -> dict[str, int]:
    """Bits of the kernels by the names of its graph's nodes."""
    wrappers = {
        name: module
        for name, module in quantised.named_modules()
        if type(module).__name__ == "PytorchQuantizationWrapper"
    }
    return {name: int(wrapper.weights_quantizers["weight"].num_bits) for name, wrapper in wrappers.items()}


def spellings(layer: str) -> tuple[str, str]:
    """Its nodes are called by the path with underscores; `_bn` is appended where a batch norm was folded in."""
    name = layer.replace(".", "_")
    return name, f"{name}_bn"


def keep_sensitivities() -> None:
    """Makes later calls in this process take over the sensitivities that the first one measured."""
    from model_compression_toolkit.core.common.mixed_precision.mixed_precision_search_manager import (
        MixedPrecisionSearchManager as Manager,
    )

    measure = Manager._build_sensitivity_mapping
    known: dict[str, Any] = {}

    def remembered(self: Any) -> Mapping[Any, Any]:
        nodes = {node.name: node for node in self.mp_topo_configurable_nodes}
        if set(known) != set(nodes):
            known.clear()
            known.update({node.name: costs for node, costs in measure(self).items()})
        return {node: known[name].copy() for name, node in nodes.items()}

    Manager._build_sensitivity_mapping = remembered
