"""Training rules, one file each, and which of them trains which encoding."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bitplan.encodings import EncodedLayer, encoding_of
from bitplan.encodings.coded import Coded, CodedTernary
from bitplan.encodings.even import EvenLevels
from bitplan.errors import UsageError
from bitplan.policies.realise.finetune.rules.apb import Apb
from bitplan.policies.realise.finetune.rules.base import Floats, Rule
from bitplan.policies.realise.finetune.rules.binary import Binary
from bitplan.policies.realise.finetune.rules.fixed import Fixed
from bitplan.policies.realise.finetune.rules.floats import Floats32
from bitplan.policies.realise.finetune.rules.grid import Grid
from bitplan.policies.realise.finetune.rules.pruned import Pruned, PrunedFloats
from bitplan.policies.realise.finetune.rules.rate import UnderRate
from bitplan.policies.realise.finetune.rules.ternary import ternary_rule
from bitplan.policies.realise.finetune.rules.ternary_at_rate import MeanThresholdAtRate, PrunedAtRate
from bitplan.policies.realise.finetune.settings import Settings

RuleOf = Callable[[Floats, EncodedLayer, EncodedLayer, Settings], Rule]
"""(full-precision weight, its nearest encoding, the layer to start from, settings) to the layer's rule."""


def _grid(weight: Floats, nearest: EncodedLayer, start: EncodedLayer, settings: Settings) -> Rule:
    return Grid(weight, nearest, start)


def _under_rate(weight: Floats, nearest: EncodedLayer, start: EncodedLayer, settings: Settings) -> Rule:
    encoding = encoding_of(start.variant)
    assert isinstance(encoding, Coded)
    if isinstance(encoding, CodedTernary) and settings.ternary == "ptq":
        return PrunedAtRate(weight, nearest, start, encoding, settings.weight_decay)
    if isinstance(encoding, CodedTernary) and settings.ternary == "twn":
        return MeanThresholdAtRate(weight, nearest, start, encoding)
    return UnderRate(weight, nearest, start, encoding)


def _apb(weight: Floats, nearest: EncodedLayer, start: EncodedLayer, settings: Settings) -> Rule:
    return Apb(weight, nearest, start, gradient=settings.apb_alpha, kept=settings.apb_kept)


RULES: Mapping[str, RuleOf] = {
    "float32": lambda weight, nearest, start, settings: Floats32(weight, nearest, start),
    "int8": _grid,
    "int4": _grid,
    "int3": _grid,
    "int2": _grid,
    "ternary": lambda weight, nearest, start, settings: ternary_rule(
        weight, nearest, start, settings.ternary, settings.zeros, settings.weight_decay
    ),
    "binary": lambda weight, nearest, start, settings: Binary(
        weight, nearest, start, mean_scale=settings.binary == "mean"
    ),
    "apb": _apb,
    "apb4": _apb,
    "coded": _under_rate,
    "codedternary": _under_rate,
    "xor": lambda weight, nearest, start, settings: Fixed(weight, nearest, start),
    "pruned": lambda weight, nearest, start, settings: Pruned(weight, nearest, start),
    "prunedfloat": lambda weight, nearest, start, settings: PrunedFloats(weight, nearest, start),
}
"""By the name of the encoding; those of evenly spaced levels need no line."""


def rule_for(weight: Floats, nearest: EncodedLayer, start: EncodedLayer, settings: Settings) -> Rule:
    """The rule that trains a layer of this encoding. Raises UsageError where there is none."""
    encoding = encoding_of(start.variant)
    rule = RULES.get(encoding.name, _grid if isinstance(encoding, EvenLevels) else None)
    if rule is None:
        raise UsageError(
            f"there is no rule to train layers as {encoding.name}; there are rules for {', '.join(RULES)}: "
            "pin its layers to another encoding, or leave out --finetune"
        )
    return rule(weight, nearest, start, settings)


__all__ = ["RULES", "Rule", "UnderRate", "rule_for"]
