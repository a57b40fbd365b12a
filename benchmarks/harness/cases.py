"""The parts of the benchmark: which workloads are timed, by which candidates, side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .levels import peer_level
from .workloads import ColdLinear, ConvChain, Peak, WholeNetwork, Workload

CONVOLUTIONS = ((64, 56), (128, 28), (256, 14), (512, 7))
"""Channels and size of the 3x3 convolutions."""
SMALL = (16, 32)
PRODUCTS = ((512, 16), (1024, 16))
"""Features and size of matrix products, as 1x1 convolutions: size^2 rows."""
LAYERS = 8
"""A layer is timed as what LAYERS of them add to a call of one: (time(LAYERS + 1) - time(1)) / LAYERS, for every
engine. So call overheads and conversions at the ends cancel for all alike; the call of one is recorded as well."""
BYTE_VARIANTS = ("int4", "int3", "int2", "ternary", "binary")
BIT_VARIANTS = ("binary@u1", "binary@u2")
BIT_KERNELS = ("", "/lookup")
"""Compute kernels of these variants: the usual one and, as bitplan measures which is faster, the other."""
APB_PAIRS = (("apb@u1:kept=0.02", "binary@u1"), ("apb:kept=0.02", "binary"))
COLD_BYTES = 256 << 20
FEATURES = 4096
BITS = {"int8": 8, "int8:matmulinteger": 8, "int4": 4, "int2": 2, "ternary": 1.6, "binary": 1}
"""Bits of a weight, at least these in memory; how many copies exceed every cache follows from them."""
TWO_BITS = "ternary+ends:int8"
"""About 2 bits a weight: ternary, and 8 bits for the first and the last layer."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """`variant` in the words of the engine; `workload` in place of the case's where it differs (copies)."""

    engine: str
    level: str
    variant: str
    threads: int = 1
    workload: Workload | None = None

    def __str__(self) -> str:
        threads = f" x{self.threads}" if self.threads > 1 else ""
        return f"{self.engine} {self.variant} {self.level}{threads}"


@dataclass(frozen=True, slots=True)
class Case:
    """Candidates that are timed in turn on one workload; `rest`, if any, is the workload that is subtracted, and
    `parts` what the difference is divided by."""

    part: str
    isa: str
    workload: Workload
    candidates: tuple[Candidate, ...]
    rest: Workload | None = None
    parts: int = 1


@dataclass(frozen=True, slots=True)
class Scope:
    """isas: our levels to measure, of which `best` is the machine's best; threads: counts to measure."""

    isas: tuple[str, ...]
    best: str
    threads: tuple[int, ...]


def conv_int8(scope: Scope) -> Iterator[Case]:
    for isa in scope.isas:
        yield from (_conv("conv-int8", scope, isa, shape, ()) for shape in CONVOLUTIONS)


def conv_small(scope: Scope) -> Iterator[Case]:
    for isa in scope.isas:
        yield _conv("conv-small", scope, isa, SMALL, ())


def conv_weights(scope: Scope) -> Iterator[Case]:
    for isa in scope.isas:
        yield from (_conv("conv-weights", scope, isa, shape, BYTE_VARIANTS) for shape in CONVOLUTIONS)


def conv_bits(scope: Scope) -> Iterator[Case]:
    for isa in scope.isas:
        yield from (_conv("conv-bits", scope, isa, shape, _with_kernels(BIT_VARIANTS)) for shape in CONVOLUTIONS)


def apb(scope: Scope) -> Iterator[Case]:
    variants = [variant for pair in APB_PAIRS for variant in pair]
    for isa in scope.isas:
        candidates = tuple(Candidate("bitplan", isa, variant) for variant in variants)
        yield _chain("apb", isa, (256, 14), 3, candidates)


def products(scope: Scope) -> Iterator[Case]:
    for isa in scope.isas:
        peak = Candidate("peak", peer_level(isa, scope.best), "int8", workload=Peak())
        ours = tuple(Candidate("bitplan", isa, variant) for variant in ("int8", "int2", *_with_kernels(BIT_VARIANTS)))
        yield from (_chain("products", isa, shape, 1, (peak, *ours)) for shape in PRODUCTS)


def linear(scope: Scope) -> Iterator[Case]:
    for isa in scope.isas:
        peers = peer_level(isa, scope.best)
        ours = [Candidate("bitplan", isa, v, 1, _cold(v)) for v in ("int8", "int4", "int2", "ternary", "binary")]
        theirs = [Candidate("onnxruntime", peers, v, 1, _cold(v)) for v in ("int8", "int8:matmulinteger", "int4")]
        yield Case("linear", isa, _cold("int8"), (*ours, *theirs))


def networks(scope: Scope) -> Iterator[Case]:
    """fp32 against ONNX Runtime's, 8 bits and 2 bits against OpenVINO's 8 bits."""
    wanted = (
        (WholeNetwork("resnet18", 224), ("float32", "int8"), ("float32", "int8", TWO_BITS)),
        (WholeNetwork("efficientnet_lite0", 224), ("int8",), ("int8",)),
        (WholeNetwork("resnet20", 32), ("int8",), ("int8",)),
    )
    for isa in scope.isas:
        peers = peer_level(isa, scope.best)
        for network, theirs, ours in wanted:
            candidates = [Candidate("bitplan", isa, v) for v in ours]
            candidates += [Candidate(engine, peers, v) for engine in ("onnxruntime", "openvino") for v in theirs]
            candidates += [Candidate("openvino", peers, "int8:qdq")]
            yield Case("networks", isa, network, tuple(candidates))


def threads(scope: Scope) -> Iterator[Case]:
    for isa in scope.isas:
        peers = peer_level(isa, scope.best)
        for variant in ("int8", "float32"):
            candidates = [
                Candidate(engine, isa if engine == "bitplan" else peers, variant, count)
                for engine in ("bitplan", "onnxruntime", "openvino")
                for count in scope.threads
            ]
            yield Case("threads", isa, WholeNetwork("resnet18", 224), tuple(candidates))


PARTS: dict[str, Callable[[Scope], Iterator[Case]]] = {
    "conv-int8": conv_int8,
    "conv-small": conv_small,
    "conv-weights": conv_weights,
    "conv-bits": conv_bits,
    "apb": apb,
    "products": products,
    "linear": linear,
    "networks": networks,
    "threads": threads,
}
"""In the order in which they run; the memory part has a process per measurement (memory.py)."""


def _with_kernels(variants: Sequence[str]) -> list[str]:
    return [variant + kernel for variant in variants for kernel in BIT_KERNELS]


def _conv(part: str, scope: Scope, isa: str, shape: tuple[int, int], variants: Sequence[str]) -> Case:
    """Ours in 8 bits and the variants, ONNX Runtime and, beside 8 bits alone, OpenVINO."""
    peers = peer_level(isa, scope.best)
    candidates = [Candidate("bitplan", isa, "int8"), Candidate("onnxruntime", peers, "int8")]
    candidates += [Candidate("bitplan", isa, variant) for variant in variants]
    if not variants:
        candidates.append(Candidate("openvino", peers, "int8"))
        if peers == "avx2":
            candidates.append(Candidate("onnxruntime", peers, "int8:unsigned"))
    return _chain(part, isa, shape, 3, tuple(candidates))


def _chain(part: str, isa: str, shape: tuple[int, int], kernel: int, candidates: tuple[Candidate, ...]) -> Case:
    whole, one = ConvChain(*shape, LAYERS + 1, kernel), ConvChain(*shape, 1, kernel)
    return Case(part, isa, whole, candidates, one, LAYERS)


def _cold(variant: str) -> ColdLinear:
    return ColdLinear(FEATURES, math.ceil(COLD_BYTES * 8 / (FEATURES**2 * BITS[variant])) + 1)
