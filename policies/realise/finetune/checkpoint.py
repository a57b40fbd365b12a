"""The state of a training after an epoch, in one file that is either the old one or the whole new one.

A safetensors file: tensors `network.*`, `best.*` (the network's state after its best epoch), `optimiser.*` and `random`
(torch's generator); its metadata holds one JSON object, `state`: the key of the training, epochs done, seconds spent, and
the history.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor

from bitplan.atomic_file import write_atomically
from bitplan.errors import FileFormatError

KIND = "bitplan fine-tuning"
FORM = f"{KIND} 2"


@dataclass(frozen=True, slots=True)
class Epoch:
    """What an epoch came to: mean training loss (None before the first); held-back loss and, for classifiers, agreement with full precision and
    accuracy (None without labels), of the layers as the artifact would hold them."""

    loss: float | None
    held_back: float
    agreement: float | None = None
    accuracy: float | None = None


@dataclass
class State:
    """Everything that training goes on from. `history[0]` is the start."""

    key: str
    network: dict[str, Tensor]
    best: dict[str, Tensor]
    optimiser: dict[str, Tensor]
    random: Tensor
    history: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    seconds: float = 0.0

    def save(self, path: Path) -> None:
        """Raises OSError where the file cannot be written; an older one is untouched then."""
        tensors = {"random": self.random}
        for prefix, group in (("network", self.network), ("best", self.best), ("optimiser", self.optimiser)):
            tensors |= {f"{prefix}.{name}": tensor.detach().clone().contiguous() for name, tensor in group.items()}
        described = {
            "key": self.key,
            "history": [asdict(epoch) for epoch in self.history],
            "best_epoch": self.best_epoch,
            "seconds": self.seconds,
        }
        write_atomically(path, save(tensors, {"format": FORM, "state": json.dumps(described)}))


def load_state(path: Path, key: str) -> State | None:
    """The state that is stored there; None where there is none, or that of another training or version. Raises FileFormatError for a
    file that is none of ours."""
    if not path.exists():
        return None
    groups: dict[str, dict[str, Tensor]] = {"network": {}, "best": {}, "optimiser": {}}
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            form = metadata.get("format", "")
            if not form.startswith(KIND):
                raise ValueError(f"its format is {form!r}, not {FORM!r}")
            if form != FORM:
                return None
            described: dict[str, Any] = json.loads(metadata["state"])
            if described["key"] != key:
                return None
            random = file.get_tensor("random")
            for name in file.keys():  # noqa: SIM118 - no mapping
                prefix, _, rest = name.partition(".")
                if rest:
                    groups[prefix][rest] = file.get_tensor(name).clone()  # aligned as torch does it
        history = [Epoch(**epoch) for epoch in described["history"]]
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"{path} is no checkpoint of fine-tuning ({error}); remove it to start anew") from error
    return State(
        key, **groups, random=random, history=history, best_epoch=described["best_epoch"], seconds=described["seconds"]
    )


def set_aside(path: Path) -> Path:
    """Moves a checkpoint, which another training would overwrite, to a name of its own beside it, and returns that."""
    numbers = itertools.count(1)
    free = next(p for p in (path.with_stem(f"{path.stem}-{number}") for number in numbers) if not p.exists())
    return path.rename(free)


def copied(network: torch.nn.Module) -> dict[str, Tensor]:
    """The network's state, which later steps leave alone."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
