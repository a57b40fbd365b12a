"""What is timed: layers and networks, described in plain values that go to every engine's process alike."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class ConvChain:
    """`depth` convolutions in a row, `channels` in and out, stride 1, zero padding, ReLU behind each, weights of their
    own: [1, channels, size, size] -> the same. With kernel 1 it is a matrix product of size^2 rows."""

    kind: ClassVar[str] = "conv-chain"
    channels: int
    size: int
    depth: int
    kernel: int = 3

    @property
    def macs(self) -> int:
        """Multiply-adds of one convolution."""
        return (self.channels * self.kernel * self.size) ** 2

    def __str__(self) -> str:
        return f"{self.kernel}x{self.kernel} {self.channels}@{self.size}"


@dataclass(frozen=True, slots=True)
class ColdLinear:
    """`copies` fully connected layers [1, features] -> [1, features] that are run in turn, each with weights of its
    own, so that every call finds its weights in memory rather than in a cache."""

    kind: ClassVar[str] = "cold-linear"
    features: int
    copies: int

    @property
    def macs(self) -> int:
        return self.features**2

    def __str__(self) -> str:
        return f"linear {self.features}x{self.features}, one row, cold"


@dataclass(frozen=True, slots=True)
class WholeNetwork:
    """A network of torchvision or of the test data by name, its image [1, 3, size, size]."""

    kind: ClassVar[str] = "network"
    name: str
    size: int

    def __str__(self) -> str:
        return f"{self.name}@{self.size}"


@dataclass(frozen=True, slots=True)
class Peak:
    """Multiply-adds of bytes in registers only, as fast as the processor can: see peak.cpp."""

    kind: ClassVar[str] = "peak"
    macs: int = 12 * 64 << 15

    def __str__(self) -> str:
        return "int8 multiply-adds in registers"


Workload = ConvChain | ColdLinear | WholeNetwork | Peak
WORKLOADS: tuple[type[Any], ...] = Workload.__args__


def to_json(workload: Workload) -> dict[str, Any]:
    return {"kind": workload.kind, **asdict(workload)}


def from_json(data: dict[str, Any]) -> Workload:
    """Raises ValueError for an unknown kind."""
    fields = dict(data)
    kind = fields.pop("kind")
    for workload in WORKLOADS:
        if workload.kind == kind:
            made: Workload = workload(**fields)
            return made
    raise ValueError(f"unknown workload {kind!r}; there are {[w.kind for w in WORKLOADS]}")
