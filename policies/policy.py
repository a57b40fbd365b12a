"""The decision: which variant each layer gets, with what was asked, predicted and proven."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bitplan.compute import kernels_for
from bitplan.html_table import html_facts, html_table
from bitplan.targets import Targets
from bitplan.variant import Variant


@dataclass(frozen=True, slots=True)
class LayerPolicy:
    """One layer's variant, with the expected file bytes, median milliseconds and share of the predicted loss, and
    the compute kernel that runs it (see bitplan/compute.py; left out: the first that can)."""

    name: str
    variant: Variant
    bytes: int
    latency_ms: float | None = None
    loss: float | None = None
    kernel: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "kernel", self.kernel or kernels_for(self.variant)[0])


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the solver gave: status `optimal`, `feasible` (stopped early) or `given` (not solved: uniform or edited);
    objective, proven bound and relative gap in the unit of the objective; wall seconds."""

    status: str = "given"
    objective: float | None = None
    bound: float | None = None
    gap: float | None = None
    seconds: float = 0.0
    solver: str = ""


@dataclass(frozen=True)
class Policy:
    """A whole network's decision. `predicted` has `file_bytes`, `resident_bytes`, `latency_ms`, `loss` and
    `full_precision_weights` (None where unknown); `hashes` names the network, weights, data and profiles it rests on."""

    layers: tuple[LayerPolicy, ...]
    targets: Targets = field(default_factory=Targets)
    predicted: Mapping[str, float | int | None] = field(default_factory=dict)
    certificate: Certificate = field(default_factory=Certificate)
    hashes: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    """threads, batch, loss metric and the like."""

    @property
    def variants(self) -> dict[str, Variant]:
        return {layer.name: layer.variant for layer in self.layers}

    @property
    def kernels(self) -> dict[str, str]:
        return {layer.name: layer.kernel for layer in self.layers}

    def _repr_html_(self) -> str:
        facts: dict[str, object] = {name.replace("_", " "): value for name, value in self.predicted.items()}
        facts |= {"solution": self.certificate.status, "gap": self.certificate.gap, "solver": self.certificate.solver}
        rows = [(x.name, str(x.variant), x.kernel, x.bytes, x.latency_ms, x.loss) for x in self.layers]
        return html_facts(facts) + html_table(("layer", "variant", "kernel", "bytes", "ms", "loss"), rows)
