"""Everything a run needs, from the command line over `optimize.yaml` over the defaults.

Each field of `Config` is an option of the command line with dashes turned into underscores, and a key of the file.
Relative paths are relative to the current folder, in the file as on the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from bitplan.atomic_file import write_atomically
from bitplan.config_values import (
    BACKENDS,
    LOSS_METRICS,
    choice,
    epochs,
    fraction_text,
    function_spec,
    latency_text,
    long_seconds,
    non_negative_number,
    numbers,
    parse_full_precision_weights,
    path,
    seconds,
    share_text,
    size_text,
    text,
    texts,
    whole,
)
from bitplan.data import DEFAULT_CALIBRATION
from bitplan.errors import UsageError
from bitplan.network import Preprocessing
from bitplan.recovery_names import (
    DEFAULT_RANGES,
    DEFAULT_TUNE_EPOCHS,
    EQUALISE,
    RANGES,
    layer_steps,
    steps_named,
)
from bitplan.suggest import suggestion
from bitplan.targets import OBJECTIVES, Targets, parse_bytes, parse_fraction, parse_seconds
from bitplan.yaml_file import read_mapping_file

DEFAULT_FILE = Path("optimize.yaml")
COMMAND_LINE, FILE, DEFAULT = "command line", "configuration file", "default"
"""Where values come from."""


@dataclass(frozen=True, slots=True)
class Config:
    """Validated at construction: raises UsageError naming the field. Limits keep the text that the user wrote;
    `targets` has them as numbers. Empty mean, std and encodings, and resize and crop of 0, mean `not given`."""

    model: str | None = None
    weights: Path | None = None
    data: str | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resize: int = 0
    crop: int = 0
    target_latency: str | None = None
    budget: str | None = None
    memory: str | None = None
    max_loss: float | None = None
    max_drop: str | None = None
    full_precision_weights: str | None = None
    objective: str = "loss"
    metric: str | None = None
    """`pkg.mod:function` that replaces top-1."""
    loss_metric: str = "kl"
    encodings: tuple[str, ...] = ()
    pin: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    recovery: tuple[str, ...] = ("balanced",)
    """Steps and presets (recovery_names.py) that make up for rounding when a policy is carried out."""
    ranges: str = DEFAULT_RANGES
    """How activation ranges are chosen when a policy is carried out (recovery_names.py)."""
    tune_epochs: int = DEFAULT_TUNE_EPOCHS
    """Epochs of the recovery step `tune`."""
    compare: tuple[str, ...] = ("float32", "int8")
    """Uniform policies carried out beside ours: variants, `fitting` for all that meet the limits, or `none`."""
    threads: int = 1
    batch: int = 1
    calibration_size: int = DEFAULT_CALIBRATION
    loss_size: int | None = None
    """Calibration images that losses are measured on; by default as many as make 128 images of 224 x 224 pixels."""
    test_size: int | None = None
    """At most so many test images."""
    hybrid: bool = False
    """Layers only: convolutions and linear layers become drop-ins, the rest stays in torch."""
    seed: int = 0
    time_limit: float = 60.0
    """Seconds for the solver."""
    finetune: int = 0
    """Epochs of quantisation-aware training behind recovery; 0: none."""
    finetune_time: float | None = None
    """Seconds that fine-tuning may take; it ends at the end of the last epoch that fits."""
    finetune_options: tuple[str, ...] = ()
    """`name=value` of policies/realise/finetune/settings.py."""
    train_data: str | None = None
    """Images to train on, as `data`; by default the calibration images."""
    loss: str | None = None
    """`pkg.mod:function(outputs, full_precision, labels)` in place of distillation."""
    polish: int = 0
    """Policies measured to improve the plan by swaps; 0: none."""
    rounds: int = 1
    """Re-plans with measured corrections where a target was missed."""
    device_profile: Path | None = None
    """An Arrow file, or the name of a profile in the library (profiles/library.py)."""
    margin: float = 0.0
    """Error bars added to latencies of steps that were not timed but estimated."""
    loss_profile: Path | None = None
    """An Arrow file, or the name of an estimator (profiles/estimators/)."""
    link_policies: int = 8
    """Random whole policies that predicted losses are calibrated on; 0: predicted losses stay as the estimator has them."""
    jobs: int = 1
    """Processes that losses are measured by; 0: as many as the backend has cores."""
    backend: str = "loky"
    """Whose processes they are: loky (this machine), ray or dask."""
    cluster: str | None = None
    """Address of a running Ray or Dask cluster; without one they start a local one."""
    output: Path = Path("bitplan-out")
    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Where values that are no defaults came from, in words, by key; itself no option."""

    def __post_init__(self) -> None:
        for name, option in self.__dataclass_fields__.items():
            if name not in READERS:
                continue
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, READERS[name](name, value))
            elif option.default is not None:
                object.__setattr__(self, name, option.default)
        if self.cluster and self.backend == "loky":
            raise UsageError("cluster is given without a backend that has one; name ray or dask, or leave it out")
        for name in ("finetune_time", "finetune_options", "train_data", "loss"):
            if getattr(self, name) and not self.finetune:
                raise UsageError(
                    f"{name} is given without finetune; say how long to train, such as --finetune 30epochs"
                )
        if self.finetune and self.hybrid:
            raise UsageError("finetune trains whole captured networks; leave out finetune or hybrid")
        if self.finetune and EQUALISE in self.recovery_steps:
            raise UsageError(
                f"finetune trains from the network's own weights; leave {EQUALISE} out of recovery, or finetune"
            )
        if 0 < self.link_policies < 3:
            raise UsageError(f"link_policies is {self.link_policies}, but a link needs 3 at least; give 0 for no link")
        channels = max(len(self.mean), len(self.std))  # where one is given alone, the other is the model's
        _ = (
            self.targets,
            self.recovery_steps,
            self.preprocessing_over(Preprocessing((0.0,) * channels, (1.0,) * channels)),
        )

    @property
    def recovery_steps(self) -> tuple[str, ...]:
        """The steps that `recovery` stands for, in their order."""
        return steps_named(self.recovery)

    @property
    def layer_recovery(self) -> tuple[str, ...]:
        """What losses of choices are measured under: the last of the steps that act on one layer, for it comprises those
        before it."""
        return layer_steps(self.recovery_steps)[-1:]

    @property
    def targets(self) -> Targets:
        """The limits as numbers, and the objective."""
        return Targets(
            latency=None if self.target_latency is None else parse_seconds(self.target_latency, "target_latency"),
            bytes=None if self.budget is None else parse_bytes(self.budget, "budget"),
            memory=None if self.memory is None else parse_bytes(self.memory, "memory"),
            loss=self.max_loss,
            max_drop=None if self.max_drop is None else parse_fraction(self.max_drop, "max_drop"),
            full_precision_weights=parse_full_precision_weights(self.full_precision_weights),
            objective=self.objective,
        )

    def preprocessing_over(self, base: Preprocessing | None) -> Preprocessing:
        """What the model's own description says, with what was given here in its place. Raises UsageError."""
        names = ("mean", "std", "resize", "crop")
        try:
            return replace(base or Preprocessing(), **{n: getattr(self, n) for n in names if getattr(self, n)})
        except ValueError as error:
            raise UsageError(str(error)) from None


def flag(name: str, value: Any) -> bool:
    """Reads true or false."""
    if not isinstance(value, bool):
        raise UsageError(f"{name} must be true or false, not {value!r}")
    return value


READERS: dict[str, Callable[[str, Any], Any]] = {
    "model": text,
    "weights": path,
    "data": text,
    "mean": numbers,
    "std": numbers,
    "resize": whole(0),
    "crop": whole(0),
    "target_latency": latency_text,
    "budget": size_text,
    "memory": size_text,
    "max_loss": non_negative_number,
    "max_drop": fraction_text,
    "full_precision_weights": share_text,
    "objective": choice(OBJECTIVES),
    "metric": function_spec,
    "loss_metric": choice(LOSS_METRICS),
    "encodings": texts,
    "pin": texts,
    "exclude": texts,
    "recovery": texts,
    "ranges": choice(RANGES),
    "tune_epochs": whole(1),
    "compare": texts,
    "threads": whole(1),
    "batch": whole(1),
    "calibration_size": whole(1),
    "loss_size": whole(1),
    "test_size": whole(1),
    "hybrid": flag,
    "seed": whole(0),
    "time_limit": seconds,
    "finetune": epochs,
    "finetune_time": long_seconds,
    "finetune_options": texts,
    "train_data": text,
    "loss": function_spec,
    "polish": whole(0),
    "rounds": whole(0),
    "device_profile": path,
    "margin": non_negative_number,
    "loss_profile": path,
    "link_policies": whole(0),
    "jobs": whole(0),
    "backend": choice(BACKENDS),
    "cluster": text,
    "output": path,
}
"""How each field is read from a file or an option: (name, value) to the value, or UsageError."""


def load_config(path: Path) -> dict[str, Any]:
    """What a configuration file gives, checked key by key; keys without a value are left out.
    Raises UsageError naming the file and the key."""
    given = read_mapping_file(path)
    try:
        return read_values(given)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def read_values(given: Mapping[str, Any]) -> dict[str, Any]:
    """Values by key as a configuration file has them, checked one by one; those that are None are left out. Raises
    UsageError naming the key."""
    for key in given:
        if key not in READERS:
            raise UsageError(f"unknown key {key!r}; {suggestion(key, READERS, 'known keys')}")
    return {key: READERS[key](key, value) for key, value in given.items() if value is not None}


def merge(
    options: Mapping[str, Any], file: Mapping[str, Any] | None = None, source: str | Mapping[str, str] = FILE
) -> Config:
    """Options over the file's values over the defaults; an option that is None or an empty list was not given. `source`:
    what the file is called, or by key where its values came from. Raises UsageError."""
    given = {key: value for key, value in options.items() if value is not None and value != [] and value != ()}
    for key in given:
        if key not in READERS:
            raise UsageError(f"unknown option {key!r}; {suggestion(key, READERS, 'known options')}")
    values = file or {}
    sources = {key: source if isinstance(source, str) else source.get(key, FILE) for key in values}
    return Config(**{**values, **given}, sources=sources | dict.fromkeys(given, COMMAND_LINE))


def plain_values(config: Config) -> dict[str, Any]:
    """Every option by its key, as a configuration file has it."""
    content: dict[str, Any] = {}
    for name in READERS:
        value = getattr(config, name)
        content[name] = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
    return content


def save_resolved(path: Path, config: Config) -> None:
    """Writes every option, defaults included, atomically; `merge({}, load_config(path))` gives the same Config."""
    content = plain_values(config)
    header = "# The configuration of this run, defaults included.\n"
    write_atomically(path, (header + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)).encode())
