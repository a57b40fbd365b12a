"""DeviceProfile: the measured latency of executor steps on one machine, kept in one Arrow file.

Latencies are in seconds. They belong to the fingerprint they were measured under, and to a level of speed that the
anchor's latency records: machines drift, so whoever compares with a later measurement times the anchor again and
scales predictions by `anchor then / anchor now`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from bitplan.errors import FileFormatError, UsageError
from bitplan.formats import derive_formats
from bitplan.html_table import html_facts, html_table
from bitplan.network import Network
from bitplan.profiles.arrow_file import read_table, write_table
from bitplan.profiles.device_schema import FORMAT, KEY_COLUMNS, LATENCY_COLUMNS, REMEDY, SCHEMA, UPGRADES, VERSION
from bitplan.profiles.fingerprint import Fingerprint, this_machine
from bitplan.profiles.steps import Kernels, StepKey, StepKeys, policy_steps
from bitplan.variant import Variant


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds of one run: median, 10 % and 90 % quantile, and over how many runs.

    The median of a step is its share of a median run of the whole network (see `samples.step_latency`), so that the
    medians of steps may be added up. Of an estimate (`estimates.py`), `low` and `high` are the quantiles of the model's
    errors, and `samples` is the number of timed steps that it was fitted on.
    """

    median: float
    low: float
    high: float
    samples: int
    estimated: bool = False

    def __post_init__(self) -> None:
        if not (0 <= self.low <= self.median <= self.high < math.inf and self.samples > 0):
            raise ValueError(f"a latency needs 0 <= low <= median <= high and samples, not {self}")

    def scaled(self, factor: float) -> Latency:
        return Latency(self.median * factor, self.low * factor, self.high * factor, self.samples, self.estimated)

    @property
    def error(self) -> float:
        """The error bar of an estimate, in seconds: one in ten takes longer than the median by more; 0 if it was timed."""
        return self.high - self.median if self.estimated else 0.0


@dataclass(frozen=True)
class DeviceProfile:
    """`entries` by step; `anchor` is the anchor network's latency on the same machine in the same hour; `recorded`: when
    the last step was timed, in ISO 8601, UTC (empty if unknown)."""

    fingerprint: Fingerprint
    anchor: Latency
    entries: Mapping[StepKey, Latency] = field(default_factory=dict)
    recorded: str = ""

    def __post_init__(self) -> None:
        if not self.anchor.median:
            raise ValueError("the anchor takes no time")

    def _repr_html_(self) -> str:
        machine = self.fingerprint
        facts = {"CPU": machine.cpu, "level": machine.isa, "kernels": machine.kernel_version, "recorded": self.recorded}
        kinds = Counter((key.variant, key.kernel) for key in self.entries)
        rows = [(variant, kernel, count) for (variant, kernel), count in sorted(kinds.items())]
        return html_facts(facts | {"anchor, ms": self.anchor.median * 1e3}) + html_table(
            ("variant", "kernel", "steps"), rows
        )

    def latency(self, key: StepKey) -> Latency:
        """Raises UsageError, naming the step and the remedy, if it was not measured."""
        try:
            return self.entries[key]
        except KeyError:
            raise UsageError(
                f"the device profile has no latency for the step {key}; measure it with `optimize profile`"
            ) from None

    def missing(self, keys: Iterable[StepKey]) -> frozenset[StepKey]:
        """Those that were not timed; estimated ones are among them."""
        return frozenset(key for key in keys if key not in self.entries or self.entries[key].estimated)

    @cached_property
    def timed(self) -> Mapping[StepKey, Latency]:
        """The entries that are no estimates."""
        return {key: latency for key, latency in self.entries.items() if not latency.estimated}

    def fastest(self, by_kernel: Mapping[str, StepKey]) -> str:
        """The kernel under which a layer's step takes least; of equals the first."""
        return min(by_kernel, key=lambda kernel: self.latency(by_kernel[kernel]).median)

    def fastest_kernels(
        self, network: Network, variants: Mapping[str, Variant], threads: int = 1, batch: int = 1
    ) -> dict[str, str]:
        """The fastest kernel of every layer, by the formats that its value is kept in."""
        kept, keys = derive_formats(network, variants).kept, StepKeys(network, threads, batch)
        return {
            node.name: self.fastest(keys.layer(node, variants[node.name], kept[node.name])) for node in network.layers
        }

    def predict(
        self,
        network: Network,
        variants: Mapping[str, Variant],
        threads: int = 1,
        batch: int = 1,
        kernels: Kernels | None = None,
    ) -> float:
        """Seconds of one run of the network at the anchor's level of speed: the sum of the medians of its steps, with
        the given kernels or the fastest ones."""
        kernels = kernels or self.fastest_kernels(network, variants, threads, batch)
        steps = policy_steps(network, variants, threads, batch, kernels)
        return math.fsum(self.latency(key).median for key in steps.values())

    def drift(self, anchor_now: Latency) -> float:
        """How many times slower the machine is than when this was measured; predictions are multiplied by it."""
        return anchor_now.median / self.anchor.median

    def merged(self, newer: DeviceProfile) -> DeviceProfile:
        """Both, brought to this profile's level of speed by the ratio of the anchors; where both have an entry the
        newer one wins, but no estimate over a timing. Raises UsageError for profiles of different machines or kernels."""
        if differences := self.fingerprint.differences(newer.fingerprint):
            raise UsageError(
                f"these device profiles cannot be merged: {'; '.join(differences)}; keep one file for each"
            )
        factor = self.anchor.median / newer.anchor.median
        added = {
            key: latency.scaled(factor)
            for key, latency in newer.entries.items()
            if not (latency.estimated and key in self.timed)
        }
        recorded = max(self.recorded, newer.recorded)
        return DeviceProfile(newer.fingerprint, self.anchor, {**self.entries, **added}, recorded)

    def require_this_machine(self) -> None:
        """Raises UsageError if what is measured here and now must not be compared with this profile: it comes from
        another machine or other kernels. Planning ahead for that machine needs no such check."""
        if differences := this_machine().differences(self.fingerprint):
            raise UsageError(
                "the device profile was measured elsewhere: "
                + "; ".join(differences)
                + "; it serves to plan ahead, but claims about this machine need `optimize profile` run here"
            )

    def save(self, path: Path, compact: bool = False) -> None:
        """Writes the Arrow file atomically; `compact`: compressed, and latencies rounded to 12 bits (one in 4,000)."""
        keys = sorted(self.entries)
        rows = [self.entries[key] for key in keys]
        columns = {name: [getattr(key, name) for key in keys] for name in KEY_COLUMNS}
        columns |= {name: [getattr(row, name) for row in rows] for name in LATENCY_COLUMNS}
        if compact:
            columns |= {name: _rounded(columns[name]) for name in ("median", "low", "high")}
        header = {"fingerprint": self.fingerprint.to_json(), "anchor": asdict(self.anchor), "recorded": self.recorded}
        write_table(path, pa.table(columns, schema=SCHEMA), header, FORMAT, VERSION, compact)

    @staticmethod
    def load(path: Path) -> DeviceProfile:
        """Reads files of this version and of version 2. Raises FileFormatError, with the path and what to do, for a file
        that is damaged or not a profile."""
        table, header = read_table(path, SCHEMA, FORMAT, VERSION, REMEDY, UPGRADES)
        try:
            keys = zip(*(table[name].to_pylist() for name in KEY_COLUMNS), strict=True)
            rows = zip(*(table[name].to_pylist() for name in LATENCY_COLUMNS), strict=True)
            entries = {StepKey(*key): Latency(*row) for key, row in zip(keys, rows, strict=True)}
            if len(entries) != table.num_rows:
                raise ValueError("a step is there twice")
            fingerprint, anchor = Fingerprint.from_json(header["fingerprint"]), Latency(**header["anchor"])
            return DeviceProfile(fingerprint, anchor, entries, str(header.get("recorded", "")))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FileFormatError(
                f"{path}: holds an impossible entry ({error}); delete the file and {REMEDY}"
            ) from error


def _rounded(seconds: list[float]) -> list[float]:
    """Numbers of 12 significant bits: the zeros behind them compress well."""
    mantissas, exponents = np.frexp(np.array(seconds))
    return [float(x) for x in np.ldexp(np.rint(mantissas * 4096) / 4096, exponents)]
