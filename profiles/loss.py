"""What each choice, alone and beside others, costs in loss: one Arrow file per network, weights, data, encodings and
estimator."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from math import inf, sqrt
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bitplan.errors import FileFormatError, UsageError
from bitplan.profiles.arrow_file import read_table, write_table
from bitplan.profiles.estimators import estimator_named
from bitplan.profiles.link import Link
from bitplan.variant import Variant

FORM = "loss profile"
VERSION = 3
HASHES = ("network", "weights", "data", "encodings")
REMEDY = "measure it with `optimize profile`"

Increases = Mapping[tuple[str, Variant], NDArray[np.float32]]


def _field(name: str, kind: pa.DataType, meaning: str, unit: str = "") -> pa.Field:
    return pa.field(name, kind, nullable=False, metadata={"meaning": meaning, **({"unit": unit} if unit else {})})


SCHEMA = pa.schema(
    [
        _field("layer", pa.string(), "name of the layer that alone is changed"),
        _field("variant", pa.string(), "what it is changed to, for people"),
        _field("encoding", pa.string(), "the variant's weight encoding"),
        _field("activation", pa.string(), "the variant's activation format: f32, u8, u4, u2 or u1"),
        _field("parameters", pa.string(), "the variant's parameters, a JSON list of [name, value]"),
        _field("loss", pa.float64(), "mean of the increases", "of the metric: nats for kl and task"),
        _field("standard_error", pa.float64(), "standard error of that mean", "as loss"),
        _field(
            "increases",
            pa.list_(pa.field("item", pa.float32(), nullable=False)),
            "loss increase of each calibration image after local recovery, in the images' order",
            "as loss",
        ),
        _field(
            "pairs",
            pa.list_(pa.field("item", pa.float64(), nullable=False)),
            "what this choice and that of every row cost together beyond their own losses; empty where not measured",
            "as loss",
        ),
        _field(
            "pair_errors",
            pa.list_(pa.field("item", pa.float32(), nullable=False)),
            "standard errors of the pairs; empty where there are none",
            "as loss",
        ),
    ]
)


@dataclass(frozen=True)
class LossProfile:
    """Loss increases float32 [N] over N calibration images of single (layer, variant) changes, and of pairs of them.

    `metric`: kl, task or squared_error (see metrics.py); `hashes`: SHA-256 of what it was measured on (HASHES).
    `estimator`: how it was measured (see estimators/). `pairs` [choices, choices], in the order of `choices`: what two
    choices of different layers cost together beyond what each costs alone, symmetric, 0 within a layer unless
    `semidefinite`; None: pairs are taken to cost nothing. `semidefinite`: diag(loss) + pairs / 2 is so by construction.
    `link`: from the sum of both, the score of a policy, to its loss. `pair_errors`: standard errors of the pairs.
    `passes`: what measuring took, in forward passes over the images. `link_policies`: how many the link was asked to be
    fitted on; 0: it never was.
    """

    metric: str
    hashes: Mapping[str, str]
    increases: Increases
    estimator: str = "separable"
    pairs: NDArray[np.float64] | None = None
    semidefinite: bool = False
    link: Link = field(default_factory=Link)
    pair_errors: NDArray[np.float64] | None = None
    passes: float = 0.0
    link_policies: int = 0

    def __post_init__(self) -> None:
        if set(self.hashes) != set(HASHES):
            raise ValueError(f"a loss profile has the hashes {HASHES}, not {tuple(self.hashes)}")
        shapes = {array.shape for array in self.increases.values()}
        if len(shapes) > 1 or any(len(shape) != 1 or shape[0] < 1 for shape in shapes):
            raise ValueError(f"all increases must be vectors over the same images, not {sorted(shapes)}")
        for (layer, variant), array in self.increases.items():
            if not np.all(np.isfinite(array)):
                raise ValueError(f"the loss increase of layer {layer!r} as {variant} is not finite")
        if self.pair_errors is not None and (self.pairs is None or self.pair_errors.shape != self.pairs.shape):
            raise ValueError("standard errors of pairs need pairs of the same shape")
        if self.pairs is not None:
            count = len(self.increases)
            if self.pairs.shape != (count, count):
                raise ValueError(f"{count} choices need pairs of shape {(count, count)}, not {self.pairs.shape}")
            if not (np.all(np.isfinite(self.pairs)) and np.array_equal(self.pairs, self.pairs.T)):
                raise ValueError("the losses of pairs must be finite and the same in either order")

    @property
    def scale(self) -> str:
        """What predicted losses are in: the metric, or the score of an estimator that no link calibrates."""
        in_metric = self.link != Link() or estimator_named(self.estimator).in_metric
        return self.metric if in_metric else f"{self.estimator} score"

    @cached_property
    def choices(self) -> tuple[tuple[str, Variant], ...]:
        """All (layer, variant), in the order of the pairs."""
        return tuple(self.increases)

    @cached_property
    def _numbers(self) -> dict[tuple[str, Variant], int]:
        return {choice: number for number, choice in enumerate(self.increases)}

    def number(self, layer: str, variant: Variant) -> int:
        """The place of a choice in `choices`. Raises UsageError where it was not measured."""
        self.per_image(layer, variant)
        return self._numbers[layer, variant]

    @cached_property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(layer for layer, _ in self.increases))

    @property
    def images(self) -> int:
        """Number of calibration images (0 in an empty profile)."""
        return next((len(array) for array in self.increases.values()), 0)

    def variants(self, layer: str) -> tuple[Variant, ...]:
        """The variants that were measured for a layer."""
        return tuple(variant for name, variant in self.increases if name == layer)

    def per_image(self, layer: str, variant: Variant) -> NDArray[np.float32]:
        """Increases [N]. Raises UsageError, naming the choice and the remedy, where it was not measured."""
        try:
            return self.increases[layer, variant]
        except KeyError:
            raise UsageError(
                f"the loss profile has no entry for layer {layer!r} as {variant}; measure it with `optimize profile`"
            ) from None

    def loss(self, layer: str, variant: Variant) -> float:
        """Mean loss increase."""
        return float(self.per_image(layer, variant).mean(dtype=np.float64))

    def standard_error(self, layer: str, variant: Variant) -> float:
        """Standard error of the mean; infinite for a single image, which says nothing of others."""
        return _standard_error(self.per_image(layer, variant))

    def same_origin(self, metric: str, hashes: Mapping[str, str], estimator: str = "separable") -> bool:
        """Whether these entries hold for a measurement with that metric, those hashes and that estimator."""
        return (self.metric, dict(self.hashes), self.estimator) == (metric, dict(hashes), estimator)

    def save(self, path: Path) -> None:
        """Writes atomically. Raises OSError, with the path, where that fails."""
        keys = list(self.increases)
        columns = [
            [layer for layer, _ in keys],
            [str(variant) for _, variant in keys],
            [variant.encoding for _, variant in keys],
            [variant.activation for _, variant in keys],
            [json.dumps(variant.parameters) for _, variant in keys],
            [self.loss(*key) for key in keys],
            [self.standard_error(*key) for key in keys],
            [self.increases[key] for key in keys],
            [()] * len(keys) if self.pairs is None else list(self.pairs),
            [()] * len(keys) if self.pair_errors is None else list(self.pair_errors.astype(np.float32)),
        ]
        arrays = [pa.array(column, f.type) for column, f in zip(columns, SCHEMA, strict=True)]
        header = {
            "metric": self.metric,
            "hashes": dict(self.hashes),
            "images": self.images,
            "estimator": self.estimator,
            "semidefinite": self.semidefinite,
            "passes": self.passes,
            "link_policies": self.link_policies,
            "link": asdict(self.link) | {"ceiling": None if self.link.ceiling == inf else self.link.ceiling},
        }
        write_table(path, pa.Table.from_arrays(arrays, schema=SCHEMA), header, FORM, VERSION)

    @classmethod
    def load(cls, path: Path) -> LossProfile:
        """Raises FileFormatError, with the path and the remedy, for anything that `save` has not written."""
        table, header = read_table(path, SCHEMA, FORM, VERSION, REMEDY)
        try:
            link = header["link"]
            return cls(
                header["metric"],
                header["hashes"],
                _increases(table),
                str(header["estimator"]),
                _matrix(table, "pairs"),
                bool(header["semidefinite"]),
                Link(link["scale"], link["power"], inf if link["ceiling"] is None else link["ceiling"]),
                _matrix(table, "pair_errors"),
                float(header["passes"]),
                int(header.get("link_policies", 0)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FileFormatError(f"{path}: does not hold together ({error}); delete the file and {REMEDY}") from error


def cache_folder() -> Path:
    """Where profiles are kept between runs: $BITPLAN_CACHE, else ~/.cache/bitplan."""
    named = os.environ.get("BITPLAN_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "bitplan"


def cache_path(metric: str, hashes: Mapping[str, str], estimator: str = "separable") -> Path:
    """The profile's place in the cache: a name made of all that it depends on, so that a stale one is never read."""
    text = json.dumps([VERSION, metric, estimator, *(hashes[name] for name in HASHES)])
    return cache_folder() / "loss" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.arrow"


def _standard_error(values: NDArray[np.float32]) -> float:
    return float(values.std(ddof=1, dtype=np.float64)) / sqrt(len(values)) if len(values) > 1 else float("inf")


def _increases(table: pa.Table) -> dict[tuple[str, Variant], NDArray[np.float32]]:
    found: dict[tuple[str, Variant], NDArray[np.float32]] = {}
    for index in range(table.num_rows):
        layer, encoding, activation, parameters = (
            table[name][index].as_py() for name in ("layer", "encoding", "activation", "parameters")
        )
        pairs = tuple((str(name), float(value)) for name, value in json.loads(parameters))
        found[layer, Variant(encoding, activation, pairs)] = np.array(table["increases"][index].values, np.float32)
    if len(found) != table.num_rows:
        raise ValueError("a layer has the same variant twice")
    return found


def _matrix(table: pa.Table, column: str) -> NDArray[np.float64] | None:
    rows = [np.array(row.values, np.float64) for row in table[column]]
    return np.stack(rows) if any(len(row) for row in rows) else None
