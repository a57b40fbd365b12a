"""Finished pieces of a realisation, so that an interrupted one goes on where it was."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings import EncodedLayer, encoding_of
from bitplan.network import WeightShape
from bitplan.variant import Variant

WORD = 4
"""Bytes of a number in the records; packed layers fill a multiple of eight."""


class Records(Protocol):
    """Vectors by name that survive the process; profiles/journal.py has one in a file."""

    records: dict[str, NDArray[np.float32]]

    def add(self, name: str, values: NDArray[np.float32]) -> None:
        """Keeps a vector; it survives once this returns."""


class LayerRecords:
    """The layers that one part of a realisation has finished, as the artifact would pack them."""

    def __init__(self, records: Records | None, part: str) -> None:
        """`part` tells apart what is recorded of the same layers."""
        self.records, self.part = records, part

    def get(self, name: str, shape: WeightShape, variant: Variant) -> EncodedLayer | None:
        """The finished layer; None if it is not there."""
        found = None if self.records is None else self.records.records.get(f"{self.part}: {name}")
        return None if found is None else encoding_of(variant).unpack(found.tobytes(), shape, variant)

    def add(self, name: str, layer: EncodedLayer) -> None:
        if self.records is not None:
            packed = encoding_of(layer.variant).pack(layer)
            assert len(packed) % WORD == 0
            self.records.add(f"{self.part}: {name}", np.frombuffer(packed, "<f4").astype(np.float32, copy=False))
