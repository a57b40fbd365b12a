"""What the latency of one executor step depends on, and which steps a policy executes.

The executor runs one step per node, and one called `<node>:u8` behind a node whose value is kept in both activation
formats. Two steps with the same key run the same code on the same shapes, in whatever network they stand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bitplan.formats import derive_formats
from bitplan.network import Network, Node, Softmax
from bitplan.profiles.format_choice import FormatChoice, LayerFormats, format_choices
from bitplan.variant import F32, OPERATION, U8, Variant

QUANTISE_SUFFIX = ":u8"
"""Behind a node's name: the step that converts its f32 value to u8."""


@dataclass(frozen=True, slots=True, order=True)
class StepKey:
    """signature: operation, parameters and shapes (`Network.signature`); variant: `int4`, `apb:kept=0.01`, or
    `none/f32`, `none/u8` (the format read) where there are no weights; output: the format that the step writes, `f32`
    or `u8` (a value kept in both is written as f32); threads; batch: images per run."""

    signature: str
    variant: str
    output: str
    threads: int
    batch: int

    def __post_init__(self) -> None:
        if not (self.signature and self.variant):
            raise ValueError(f"a step needs a signature and a variant, not {self}")
        if self.output not in (F32, U8):
            raise ValueError(f"a step writes {F32} or {U8}, not {self.output!r}")
        if self.threads < 1 or self.batch < 1:
            raise ValueError(f"a step runs on at least one thread and one image, not {self}")

    def __str__(self) -> str:
        return f"{self.signature} | {self.variant} -> {self.output} | threads {self.threads}, batch {self.batch}"


def variant_text(variant: Variant) -> str:
    """A variant as keys spell it; the format belongs to the text of operations without weights only."""
    return f"none/{variant.activation}" if variant.encoding == "none" else str(variant)


def step_key(network: Network, node: Node, variant: Variant, output: str, threads: int = 1, batch: int = 1) -> StepKey:
    """The key of a node's step: `variant` is the layer's, or OPERATION[format read] for a node without weights
    (inputs read f32)."""
    return StepKey(network.signature(node), variant_text(variant), output, threads, batch)


def quantise_key(network: Network, node: Node, threads: int = 1, batch: int = 1) -> StepKey:
    """The key of the step `<node>:u8`."""
    shape = "x".join(map(str, network.by_name[node.name].shape))
    return StepKey(f"quantise o{shape}", variant_text(OPERATION[F32]), U8, threads, batch)


def policy_steps(
    network: Network, variants: Mapping[str, Variant], threads: int = 1, batch: int = 1
) -> dict[str, StepKey]:
    """The key of every step that the executor runs under one variant per layer, by step name, in order."""
    formats = derive_formats(network, variants)
    steps: dict[str, StepKey] = {}
    for node in network:
        kept = formats.kept[node.name]
        variant = variants.get(node.name) or OPERATION[formats.read.get(node.name, F32)]
        steps[node.name] = step_key(network, node, variant, F32 if F32 in kept else U8, threads, batch)
        if len(kept) == 2:
            steps[node.name + QUANTISE_SUFFIX] = quantise_key(network, node, threads, batch)
    return steps


@dataclass(frozen=True, slots=True)
class Way:
    """What makes a policy execute a step: a layer's variant and activation formats of other layers."""

    variants: Mapping[str, Variant] = field(default_factory=dict)
    formats: LayerFormats = field(default_factory=dict)


def step_ways(
    network: Network, menu: Mapping[str, Sequence[Variant]], threads: int = 1, batch: int = 1
) -> dict[StepKey, list[Way]]:
    """Every key that some policy of the menu executes, with the ways to have it executed; each way suffices."""
    allowed = {name: frozenset(variant.activation for variant in variants) for name, variants in menu.items()}
    choices = format_choices(network, allowed)
    found: dict[StepKey, list[Way]] = {}
    for node in network:
        choice = choices[node.name]
        if node.name in menu:
            for variant in menu[node.name]:
                for output, ways in ((F32, choice.f32), (U8, choice.u8)):
                    if ways:
                        key = step_key(network, node, variant, output, threads, batch)
                        found.setdefault(key, []).extend(Way({node.name: variant}, way) for way in ways)
        else:
            for variant, output, ways in _without_weights(node, choice):
                if ways:
                    key = step_key(network, node, variant, output, threads, batch)
                    found.setdefault(key, []).extend(Way(formats=way) for way in ways)
        if choice.both:
            key = quantise_key(network, node, threads, batch)
            found.setdefault(key, []).extend(Way(formats=way) for way in choice.both)
    return found


def all_keys(
    network: Network, menu: Mapping[str, Sequence[Variant]], threads: int = 1, batch: int = 1
) -> frozenset[StepKey]:
    """Every key that a planner can meet: exactly the union of `policy_steps` over all policies of the menu."""
    return frozenset(step_ways(network, menu, threads, batch))


def _without_weights(node: Node, choice: FormatChoice) -> list[tuple[Variant, str, tuple[LayerFormats, ...]]]:
    """Such a node reads u8 exactly if it writes u8; inputs and softmax always read f32."""
    narrow = OPERATION[F32] if isinstance(node.op, Softmax) or not node.inputs else OPERATION[U8]
    return [(OPERATION[F32], F32, choice.f32), (narrow, U8, choice.u8)]
