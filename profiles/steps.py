"""What the latency of one executor step depends on, and which steps a policy executes.

The executor runs one step per node. A layer's writes its value in all formats that it is kept in; any other node's
writes f32 or u8, and a step `<node>:<format>` behind it converts f32 to each further format. Two steps with the same
key run the same code on the same shapes, in whatever network they stand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bitplan.compute import KERNELS, kernels_for
from bitplan.encodings import encoding_of
from bitplan.formats import derive_formats, in_order
from bitplan.kernels.artifact import layer_kernel
from bitplan.network import Network, Node, Softmax
from bitplan.profiles.format_choice import Demands, FormatChoice, format_choices, possible
from bitplan.variant import F32, FORMATS, OPERATION, U8, Variant

Kept = frozenset[str]
Kernels = Mapping[str, str]
"""The compute kernel of every layer."""


@dataclass(frozen=True, slots=True, order=True)
class StepKey:
    """signature: operation, parameters and shapes (`Network.signature`); variant: `int4`, `apb@u1:kept=0.01`, or
    `none/f32`, `none/u8` (the format read) where there are no weights; kernel: that of a layer (see
    bitplan/compute.py), else empty; output: the formats that the step writes, in order, such as `u8` or `f32+u2`;
    threads; batch: images per run."""

    signature: str
    variant: str
    kernel: str
    output: str
    threads: int
    batch: int

    def __post_init__(self) -> None:
        if not (self.signature and self.variant):
            raise ValueError(f"a step needs a signature and a variant, not {self}")
        if self.kernel not in ("", *KERNELS):
            raise ValueError(f"a step runs on {', '.join(KERNELS)} or no kernel, not {self.kernel!r}")
        written = self.output.split("+")
        if not written[0] or "+".join(in_order(frozenset(written))) != self.output:
            raise ValueError(f"a step writes formats of {', '.join(FORMATS)} in this order, not {self.output!r}")
        if self.threads < 1 or self.batch < 1:
            raise ValueError(f"a step runs on at least one thread and one image, not {self}")

    def __str__(self) -> str:
        kernel = f" by {self.kernel}" if self.kernel else ""
        return (
            f"{self.signature} | {self.variant}{kernel} -> {self.output} | threads {self.threads}, batch {self.batch}"
        )


@dataclass(frozen=True, slots=True)
class StepKeys:
    """Makes the keys of a network's nodes for a number of threads and a batch."""

    network: Network
    threads: int = 1
    batch: int = 1

    def layer(self, node: Node, variant: Variant, kept: Kept) -> dict[str, StepKey]:
        """The key of a layer's step under each of the kernels that can run it, by kernel."""
        signature, output = self.network.signature(node), "+".join(in_order(kept))
        executed = str(encoding_of(variant).in_memory(variant))
        return {
            kernel: StepKey(signature, executed, kernel, output, self.threads, self.batch)
            for kernel in kernels_for(variant)
        }

    def operation(self, node: Node, kept: Kept) -> dict[str, StepKey]:
        """The keys of the steps of a node without weights, by the step's name: its own and the conversions behind it.
        It reads u8 exactly if it writes u8; inputs and softmax always read f32."""
        output = U8 if kept == {U8} else F32
        read = F32 if isinstance(node.op, Softmax) or not node.inputs else output
        signature, variant = self.network.signature(node), f"none/{OPERATION[read].activation}"
        own = StepKey(signature, variant, "", output, self.threads, self.batch)
        return {node.name: own} | {
            conversion_name(node, form): self.conversion(node, form) for form in in_order(kept) if form != output
        }

    def conversion(self, node: Node, form: str) -> StepKey:
        """The key of the step `<node>:<format>`."""
        shape = "x".join(map(str, self.network.by_name[node.name].shape))
        return StepKey(f"convert o{shape}", f"none/{F32}", "", form, self.threads, self.batch)


def conversion_name(node: Node, form: str) -> str:
    """The name of the step that converts a node's value from f32."""
    return f"{node.name}:{form}"


def policy_steps(
    network: Network, variants: Mapping[str, Variant], threads: int = 1, batch: int = 1, kernels: Kernels | None = None
) -> dict[str, StepKey]:
    """The key of every step that the executor runs under one variant per layer, by step name, in order. `kernels`
    names the compute kernels of layers; where it does not, the first that can run the variant does.
    Raises UsageError for one that cannot run its layer."""
    formats, keys = derive_formats(network, variants), StepKeys(network, threads, batch)
    steps: dict[str, StepKey] = {}
    for node in network:
        if node.name in variants:
            by_kernel = keys.layer(node, variants[node.name], formats.kept[node.name])
            kernel = layer_kernel(node.name, variants[node.name], (kernels or {}).get(node.name))
            steps[node.name] = by_kernel[kernel]
        else:
            steps |= keys.operation(node, formats.kept[node.name])
    return steps


@dataclass(frozen=True, slots=True)
class Way:
    """What makes a policy execute a step: the variant and kernel of a layer, and what other layers' activation formats
    have to meet."""

    variants: Mapping[str, Variant] = field(default_factory=dict)
    kernels: Kernels = field(default_factory=dict)
    demands: Demands = ()


def step_ways(
    network: Network, menu: Mapping[str, Sequence[Variant]], threads: int = 1, batch: int = 1
) -> dict[StepKey, list[Way]]:
    """Every key that some policy of the menu executes, with the ways to have it executed; each way suffices."""
    allowed = {name: frozenset(variant.activation for variant in variants) for name, variants in menu.items()}
    choices, keys = format_choices(network), StepKeys(network, threads, batch)
    found: dict[StepKey, list[Way]] = {}
    for node in network:
        choice = choices[node.name]
        if node.name in menu:
            for kept, demands in choice.reachable(allowed):
                for variant in menu[node.name]:
                    for kernel, key in keys.layer(node, variant, kept).items():
                        found.setdefault(key, []).append(Way({node.name: variant}, {node.name: kernel}, demands))
            continue
        for key, demands in _operation_demands(keys, node, choice):
            if possible(demands, allowed):
                found.setdefault(key, []).append(Way(demands=demands))
    return found


def all_keys(
    network: Network, menu: Mapping[str, Sequence[Variant]], threads: int = 1, batch: int = 1
) -> frozenset[StepKey]:
    """Every key that a planner can meet: exactly the union of `policy_steps` over all policies of the menu, whatever
    kernels they name."""
    return frozenset(step_ways(network, menu, threads, batch))


def _operation_demands(keys: StepKeys, node: Node, choice: FormatChoice) -> Iterator[tuple[StepKey, Demands]]:
    """The steps that a node without weights can have, and when it has them: it writes f32 as soon as somebody reads
    more than u8, and converts it to whatever else is read."""
    wider = choice.some_reads(*(form for form in FORMATS if form != U8))
    yield keys.operation(node, frozenset([U8]))[node.name], choice.read_as(frozenset([U8]))
    yield keys.operation(node, frozenset([F32]))[node.name], [wider]
    for form in FORMATS[1:]:
        yield keys.conversion(node, form), [choice.some_reads(form), *([wider] if form == U8 else [])]
