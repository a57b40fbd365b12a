"""NVIDIA's ModelOpt: `auto_quantize`, by gradients (its default) or by the Kullback-Leibler divergence.

It scores once and solves its program for every budget (`get_auto_quantize_config`). By default a layer may also stay
unquantised and the ready-made formats leave some layers out by name; here the search space is the menu alone, for every
Conv2d and Linear.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from . import Unavailable
from .assignment import MENU, matched
from .subject import Subject

ABOUT = (
    "mtq.auto_quantize, method {method}, formats of 2, 4, 8 bits per output channel with 8-bit activations ('max' "
    "calibration), every layer in one search space without 'no quantisation', nothing disabled, effective_bits = budget"
)
PACKAGES = ("nvidia-modelopt", "requests", "huggingface_hub")
LOSS_SCALE = 1000.0
Batch = tuple[Tensor, Tensor]


def format_of(bits: int) -> dict[str, Any]:
    """Weights of so many bits with a scale per output channel, activations of 8 bits."""
    return {
        "quant_cfg": [
            {"quantizer_name": "*", "enable": False},
            {"quantizer_name": "*weight_quantizer", "enable": True, "cfg": {"num_bits": bits, "axis": 0}},
            {"quantizer_name": "*input_quantizer", "enable": True, "cfg": {"num_bits": 8, "axis": None}},
        ],
        "algorithm": "max",
        "effective_bits": float(bits),
    }


def assign(
    subject: Subject, budgets: Sequence[float], method: str = "gradient"
) -> Iterator[tuple[float, dict[str, int]]]:
    try:
        import modelopt.torch.quantization as mtq
    except ImportError as reason:
        raise Unavailable(f"nvidia-modelopt is not installed ({reason}); pip install 'bitplan[allocation]'") from None
    _, state = mtq.auto_quantize(
        copy.deepcopy(subject.module),
        constraints={"effective_bits": max(budgets)},
        module_search_spaces=[
            {
                "module_name_patterns": list(subject.layers),
                "quantization_formats": [format_of(bits) for bits in MENU],
                "allow_no_quant": False,
            }
        ],
        quantization_formats=[format_of(bits) for bits in MENU],
        data_loader=subject.batches,
        forward_step=_forward,
        loss_func=_loss if method == "gradient" else None,
        num_calib_steps=len(subject.batches),
        num_score_steps=len(subject.batches),
        method=method,
    )
    for budget in budgets:
        config = mtq.get_auto_quantize_config(state, {"effective_bits": budget})
        yield budget, matched(bits_by_module(config), list(subject.layers))


def bits_by_module(config: Mapping[str, Any]) -> dict[str, int]:
    """Bits of the weights by the paths of modules, from the configuration that it found."""
    end = ".weight_quantizer"
    return {
        entry["quantizer_name"].removesuffix(end): int(entry["cfg"]["num_bits"])
        for entry in config["quant_cfg"]
        if entry["quantizer_name"].endswith(end) and entry.get("enable", True)
    }


def _forward(module: nn.Module, batch: Batch) -> Tensor:
    output = module(batch[0])
    assert isinstance(output, Tensor)
    return output


def _loss(output: Tensor, batch: Batch) -> Tensor:
    """Scores go with its square, so a factor changes no optimum; without it they lie below the absolute tolerances of
    the solver, which then leaves up to a third of the budget unused."""
    return LOSS_SCALE * torch.nn.functional.cross_entropy(output, batch[1], reduction="sum")
