"""What fine-tuning can be told, with its defaults (docs/finetuning.md, decision 0013)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from bitplan.errors import DataError, UsageError
from bitplan.suggest import suggestion

CHOICES: Mapping[str, tuple[str, ...]] = {
    "optimiser": ("adamw", "sgd"),
    "activations": ("codes", "float"),
    "augment": ("auto", "none", "crop", "flip", "crop+flip"),
    "binary": ("learned", "mean"),
    "ternary": ("learned", "twn", "ptq"),
    "apb_kept": ("start", "count", "learned"),
    "apb_alpha": ("exact", "published", "frozen"),
}
"""The words that a field takes."""

LEARNING_RATES = {"adamw": 5e-3, "sgd": 0.05}
"""Latent weights are in units of their channel's scale: a step of one changes a level."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Validated at construction: raises UsageError naming the field."""

    epochs: int = 30
    batch: int = 128
    optimiser: str = "adamw"
    learning_rate: float = 0.0
    """Of latent weights, scales and biases, with a cosine schedule; 0: that of LEARNING_RATES."""
    weight_decay: float = 0.0
    """Of latent weights alone; with `apb` and `apb_kept=learned` it is what makes the kept ones fewer."""
    clip: float = 5.0
    """Largest norm of all gradients together; 0: none."""
    temperature: float = 4.0
    task: float = 0.0
    """Weight of the cross entropy to the labels beside distillation."""
    activations: str = "codes"
    """`float` trains weights alone, as if activations were not rounded."""
    normalise: bool = True
    """Batch norm behind every convolution that is not float32 while training, folded again at the end."""
    augment: str = "auto"
    bf16: bool = False
    """Convolutions of the training steps in bfloat16; held-back images are always evaluated exactly."""
    held_back: int = 0
    """Training images that are held back; 0: a fifth, at most 1,000."""
    patience: int = 10
    """Epochs without a new best after which training ends; 0: never."""
    binary: str = "learned"
    """The scale of binary layers: learned, or the mean magnitude of the latent weights."""
    ternary: str = "learned"
    """How weights become ternary: a learned step, TWN's threshold, or pruning (PTQ)."""
    zeros: float = 0.5
    """Fraction of zeros that `ternary=ptq` ends with."""
    apb_kept: str = "start"
    """`start` keeps the weights that recovery chose, `count` as many as the policy says by distance from the magnitude,
    chosen anew in every step, `learned` those beyond a learned threshold."""
    apb_alpha: str = "exact"
    """The gradient of APB's magnitude."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, legal in CHOICES.items():
            if getattr(self, name) not in legal:
                raise UsageError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(legal)}")
        for name, least in (("epochs", 1), ("batch", 1), ("held_back", 0), ("patience", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        for name in ("learning_rate", "weight_decay", "clip", "task"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be finite and at least 0")
        if not 0 < self.temperature < math.inf:
            raise UsageError(f"temperature is {self.temperature}; it must be above 0")
        if not 0 <= self.zeros < 1:
            raise UsageError(f"zeros is {self.zeros}; it must be a fraction below 1")

    def check_labels(self, labels: object | None) -> None:
        """Raises DataError where a loss to labels is asked for and there are none."""
        if self.task and labels is None:
            raise DataError("task asks for a loss to labels, and the training images have none; leave it out")

    @property
    def rate(self) -> float:
        """The learning rate that is used."""
        return self.learning_rate or LEARNING_RATES[self.optimiser]


def parse_settings(texts: Iterable[str], **given: Any) -> Settings:
    """Settings from texts `name=value` over `given`. Raises UsageError naming the text."""
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not value.strip():
            raise UsageError(f"the fine-tuning option {text!r} must look like 'learning_rate=0.001'")
        if name not in READERS:
            raise UsageError(f"unknown fine-tuning option {name!r}; {suggestion(name, READERS, 'known options')}")
        try:
            values[name] = READERS[name](value.strip())
        except ValueError:
            raise UsageError(f"the fine-tuning option {name} is {value.strip()!r}; it must be {KINDS[name]}") from None
    return Settings(**{**given, **values})


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError
    return text == "true"


_TYPES: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "int": (int, "a whole number"),
    "float": (float, "a number"),
    "bool": (_flag, "true or false"),
    "str": (str, "a word"),
}
READERS = {field.name: _TYPES[str(field.type)][0] for field in fields(Settings)}
KINDS = {field.name: _TYPES[str(field.type)][1] for field in fields(Settings)}
