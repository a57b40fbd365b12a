"""From records to the rows of the table: ratios of equal quantiles, geometric means over shapes, bars."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from .cases import APB_PAIRS, BIT_KERNELS, BIT_VARIANTS, BYTE_VARIANTS, TWO_BITS

COMMAND = "python benchmarks/against_peers.py"


@dataclass(frozen=True, slots=True)
class Row:
    """key: part/level/what, for bars.json; low, median: the figure by 10 % quantiles and by medians; bar, stretch:
    what it should be at most (`higher`: at least), where that is set."""

    key: str
    what: str
    low: float
    median: float
    higher: bool = False
    bar: float | None = None
    stretch: float | None = None

    @property
    def command(self) -> str:
        part, isa, *_ = self.key.split("/")
        return f"{COMMAND} --only {part}" + (f" --isa {isa}" if isa != "any" else "")

    @property
    def met(self) -> bool | None:
        """None where no bar is set."""
        return self._reaches(self.bar)

    @property
    def stretch_met(self) -> bool | None:
        return self._reaches(self.stretch)

    def _reaches(self, limit: float | None) -> bool | None:
        if limit is None:
            return None
        return self.low >= limit if self.higher else self.low <= limit


Figures = Mapping[str, float]
"""By quantile: "low_ms" and "median_ms"."""


@dataclass(frozen=True)
class Records:
    """The records of a run, asked by what they are of; workloads in the order in which they were timed."""

    records: Sequence[Mapping[str, Any]]

    def isas(self, part: str) -> list[str]:
        return list(dict.fromkeys(r["isa"] for r in self.records if r["part"] == part))

    def workloads(self, part: str, isa: str) -> list[str]:
        return list(dict.fromkeys(r["workload"] for r in self.records if (r["part"], r["isa"]) == (part, isa)))

    def find(self, **wanted: Any) -> Mapping[str, Any] | None:
        """The record with the wanted fields, if there is one; the last where it was timed again."""
        found = [r for r in self.records if all(r[name] == value for name, value in wanted.items())]
        return found[-1] if found else None

    def macs(self, part: str, isa: str, workload: str) -> int | None:
        """Multiply-adds of a workload."""
        record = self.find(part=part, isa=isa, workload=workload)
        return None if record is None else record["macs"]

    def time(self, **wanted: Any) -> Figures | None:
        record = self.find(**wanted)
        return None if record is None else {name: record[name] for name in ("low_ms", "median_ms")}


def rows(records: Records, memory: Sequence[Mapping[str, Any]] = ()) -> list[Row]:
    """All figures that the records suffice for."""
    return [
        *_convolutions(records),
        *_products(records),
        *_apb(records),
        *_linear(records),
        *_networks(records),
        *_threads(records),
        *_memory(memory),
    ]


def with_bars(found: Iterable[Row], file: Path) -> list[Row]:
    """Rows with the bars of a JSON file {key pattern: {"bar": number, "stretch": number}}; the first match counts."""
    bars: dict[str, dict[str, float | None]] = json.loads(file.read_text())

    def bar_of(row: Row) -> Row:
        for pattern, limits in bars.items():
            if fnmatchcase(row.key, pattern):
                return replace(row, bar=limits.get("bar"), stretch=limits.get("stretch"))
        return row

    return [bar_of(row) for row in found]


def ratio(a: Figures | None, b: Figures | None) -> Figures | None:
    return None if a is None or b is None else {name: a[name] / b[name] for name in a}


def better(*figures: Figures | None) -> Figures | None:
    """The one that is faster by its low quantile, of those that are there."""
    there = [f for f in figures if f is not None]
    return min(there, key=lambda f: f["low_ms"]) if there else None


def geometric_mean(figures: Sequence[Figures | None]) -> Figures | None:
    """None where any is missing: a mean over fewer shapes would be another figure."""
    there = [f for f in figures if f is not None]
    if not there or len(there) < len(figures):
        return None
    return {name: math.exp(sum(math.log(f[name]) for f in there) / len(there)) for name in there[0]}


def _row(key: str, what: str, figures: Figures | None, higher: bool = False) -> Iterator[Row]:
    if figures is not None:
        yield Row(key, what, figures["low_ms"], figures["median_ms"], higher)


def _convolutions(records: Records) -> Iterator[Row]:
    peers = {
        "openvino": ("OpenVINO int8", {"engine": "openvino", "variant": "int8"}),
        "onnxruntime": ("ONNX Runtime int8", {"engine": "onnxruntime", "variant": "int8"}),
        "onnxruntime-unsigned": (
            "ONNX Runtime with exact 8-bit weights",
            {"engine": "onnxruntime", "variant": "int8:unsigned"},
        ),
    }
    for part, what in (("conv-int8", "int8 conv 3x3, geometric mean"), ("conv-small", "int8 conv 3x3, 16@32")):
        for isa in records.isas(part):
            for name, (peer, wanted) in peers.items():
                ratios = [
                    ratio(
                        records.time(part=part, isa=isa, workload=w, engine="bitplan", variant="int8"),
                        records.time(part=part, isa=isa, workload=w, **wanted),
                    )
                    for w in records.workloads(part, isa)
                ]
                yield from _row(f"{part}/{isa}/{name}", f"{what} / {peer}, {isa}", geometric_mean(ratios))
    for part, variants in (("conv-weights", BYTE_VARIANTS), ("conv-bits", BIT_VARIANTS)):
        for isa in records.isas(part):
            for variant in variants:
                ratios = []
                for w in records.workloads(part, isa):
                    here: dict[str, Any] = {"part": part, "isa": isa, "workload": w}
                    int8 = better(
                        records.time(**here, engine="bitplan", variant="int8"),
                        records.time(**here, engine="onnxruntime", variant="int8"),
                    )
                    ours = (records.time(**here, engine="bitplan", variant=variant + kernel) for kernel in BIT_KERNELS)
                    ratios.append(ratio(better(*ours), int8))
                what = f"{variant} conv 3x3 / better int8 (ours, ONNX Runtime), geometric mean, {isa}"
                yield from _row(f"{part}/{isa}/{variant}", what, geometric_mean(ratios))


def _products(records: Records) -> Iterator[Row]:
    """Multiply-adds a second over the processor's int8 peak."""
    part = "products"
    for isa in records.isas(part):
        peak = records.find(part=part, isa=isa, engine="peak")
        if peak is None:
            continue
        for workload in records.workloads(part, isa):
            for variant in ("int8", "int2", *BIT_VARIANTS):
                here: dict[str, Any] = {"part": part, "isa": isa, "engine": "bitplan", "workload": workload}
                ours = better(*(records.time(**here, variant=variant + kernel) for kernel in BIT_KERNELS))
                macs = records.macs(part, isa, workload)
                if ours and macs:
                    speed = {name: (macs / ours[name]) / (peak["macs"] / peak[name]) for name in ours}
                    what = f"{variant} product (conv {workload}) in int8 peaks, higher is better, {isa}"
                    yield from _row(f"{part}/{isa}/{variant}/{workload}", what, speed, higher=True)


def _apb(records: Records) -> Iterator[Row]:
    part = "apb"
    for isa in records.isas(part):
        for kept, binary in APB_PAIRS:
            here: dict[str, Any] = {"part": part, "isa": isa, "engine": "bitplan"}
            cost = ratio(records.time(**here, variant=kept), records.time(**here, variant=binary))
            added = None if cost is None else {name: value - 1 for name, value in cost.items()}
            yield from _row(f"{part}/{isa}/{binary}", f"what 2 % kept weights add to {binary}, 256@14, {isa}", added)


def _linear(records: Records) -> Iterator[Row]:
    part = "linear"
    for isa in records.isas(part):
        here: dict[str, Any] = {"part": part, "isa": isa}
        theirs = {
            "int8": better(
                records.time(**here, engine="onnxruntime", variant="int8"),
                records.time(**here, engine="onnxruntime", variant="int8:matmulinteger"),
            ),
            "int4": records.time(**here, engine="onnxruntime", variant="int4"),
        }
        for variant in ("int8", "int4", "int2", "ternary", "binary"):
            ours = records.time(**here, engine="bitplan", variant=variant)
            for peer, name in (("int8", "int8"), ("int4", "4-bit MatMulNBits")):
                what = f"{variant} linear 4096x4096, one row, cold / ONNX Runtime {name}, {isa}"
                yield from _row(f"{part}/{isa}/{variant}/{peer}", what, ratio(ours, theirs[peer]))


def _networks(records: Records) -> Iterator[Row]:
    part = "networks"
    compared = (
        ("resnet18@224", "float32", (("onnxruntime", "float32"), ("openvino", "float32"))),
        ("resnet18@224", "int8", (("openvino", "int8"), ("onnxruntime", "int8"))),
        ("resnet18@224", TWO_BITS, (("openvino", "int8"),)),
        ("efficientnet_lite0@224", "int8", (("openvino", "int8"), ("openvino", "int8:qdq"), ("onnxruntime", "int8"))),
        ("resnet20@32", "int8", (("openvino", "int8"), ("openvino", "int8:qdq"), ("onnxruntime", "int8"))),
    )
    for isa in records.isas(part):
        for workload, variant, peers in compared:
            here: dict[str, Any] = {"part": part, "isa": isa, "workload": workload}
            ours = records.time(**here, engine="bitplan", variant=variant)
            for engine, theirs in peers:
                what = f"{workload} {variant} / {engine} {theirs}, {isa}"
                key = f"{part}/{isa}/{workload}/{variant}/{engine}-{theirs}"
                yield from _row(key, what, ratio(ours, records.time(**here, engine=engine, variant=theirs)))
        small, full = (
            records.find(part=part, isa=isa, workload="resnet18@224", engine="bitplan", variant=variant)
            for variant in (TWO_BITS, "int8")
        )
        if small and full:
            size = small["about"]["artifact_bytes"] / full["about"]["artifact_bytes"]
            yield Row(f"{part}/{isa}/resnet18@224/file", f"resnet18@224 {TWO_BITS}, file / int8 file", size, size)


def _threads(records: Records) -> Iterator[Row]:
    part = "threads"
    for isa in records.isas(part):
        for variant in ("int8", "float32"):
            for engine in ("bitplan", "onnxruntime", "openvino"):
                here: dict[str, Any] = {"part": part, "isa": isa, "engine": engine, "variant": variant}
                two = ratio(records.time(**here, threads=1), records.time(**here, threads=2))
                what = f"resnet18@224 {variant}, {engine}: one thread / two, higher is better, {isa}"
                yield from _row(f"{part}/{isa}/{variant}/{engine}", what, two, higher=True)


def _memory(memory: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    added = {record["engine"]: record["added_pss"] for record in memory}
    for peer in ("openvino", "onnxruntime"):
        if "bitplan" in added and peer in added:
            value = added["bitplan"] / added[peer]
            yield Row(f"memory/any/{peer}", f"memory added by resnet18@224 int8 / {peer}", value, value)
