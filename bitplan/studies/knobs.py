"""The knobs of `optimize study`: their names, how their values are written, and what the planner alone uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bitplan.config import Config
from bitplan.encodings import encoding_of
from bitplan.encodings.apb import Apb
from bitplan.errors import UsageError
from bitplan.network import Network
from bitplan.optimizer.study import Choices, Range, Value, parse_domain
from bitplan.policies.menu import layers_matching, variants_of
from bitplan.policies.realise.finetune.settings import READERS as FINETUNING
from bitplan.policies.realise.finetune.settings import parse_settings
from bitplan.policies.variants import check_variant
from bitplan.profiles.estimators import DEFAULT, estimator_named
from bitplan.recovery_names import RANGES, steps_named
from bitplan.suggest import suggestion
from bitplan.variant import F32, FORMATS, Variant

MENU = "menu"
"""The value of a knob that leaves the command's own menu as it is."""
AND = "+"
"""Between the parts of one value."""
ENCODINGS, KEPT, ACTIVATIONS, ESTIMATOR, RECOVERY, RANGE_METHOD = (
    "encodings",
    "kept",
    "activations",
    "estimator",
    "recovery",
    "ranges",
)
CALIBRATION, TUNE_EPOCHS, FINETUNE, BYTES, LATENCY = "calibration_size", "tune_epochs", "finetune", "budget", "latency"
MENU_KNOBS = (ENCODINGS, KEPT, ACTIVATIONS)
"""Those that decide, with groups, which variants a layer may get."""
GROUP, OPTION = "group:", "finetune."
"""Beginnings of knobs: a group of layers by a pattern, and an option of fine-tuning."""
FEW = 6
SHARE = 0.5
"""Of a limit, from which a study looks that has bytes or latency as an objective."""


@dataclass(frozen=True)
class Kind:
    """How one value of a knob is read (raises UsageError), what the planner alone uses, and what is tried where the knob
    is not given (None: nothing but the planner's)."""

    meaning: str
    read: Callable[[str], Value]
    planner: Callable[[Config], Value]
    tried: Callable[[Config], Choices | Range | None] = lambda config: None


def _entries(text: str) -> str:
    if text != MENU:
        variants_of(text.split(AND))
    return text


def _kept(text: str) -> Value:
    if text == MENU or AND in text:
        return text if text == MENU else AND.join(f"{_kept_share(part):g}" for part in text.split(AND))
    return _kept_share(text)


def _kept_share(text: str) -> float:
    share = _number(KEPT, text)
    check_variant(Variant("apb", parameters=(("kept", float(f"{share:.3g}")),)))
    return share


def _formats(text: str) -> str:
    for part in () if text == MENU else text.split(AND):
        if part not in FORMATS or part == F32:
            raise UsageError(
                f"the knob {ACTIVATIONS}: {part!r} is no format; formats are {', '.join(FORMATS[1:])}, joined by {AND}, or {MENU}"
            )
    return text


def _recovery(text: str) -> str:
    steps_named(text.split(AND), f"the knob {RECOVERY}:")
    return text


def _one_of(name: str, known: Sequence[str]) -> Callable[[str], Value]:
    def read(text: str) -> Value:
        if text not in known:
            raise UsageError(f"the knob {name} cannot be {text!r}; {suggestion(text, known, 'its values')}")
        return text

    return read


def _whole(name: str, least: int) -> Callable[[str], Value]:
    def read(text: str) -> Value:
        if not text.isdecimal() or int(text) < least:
            raise UsageError(f"the knob {name} is {text!r}; it must be a whole number of at least {least}")
        return int(text)

    return read


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"the knob {name} is {text!r}; it must be a number") from None


def _share(name: str) -> Callable[[str], Value]:
    def read(text: str) -> Value:
        value = _number(name, text)
        if not 0 < value <= 1:
            raise UsageError(f"the knob {name} is {text}; it is a share of the limit, above 0 and at most 1")
        return value

    return read


def estimator_of(config: Config) -> str:
    return DEFAULT if config.loss_profile is None else str(config.loss_profile)


KINDS: Mapping[str, Kind] = {
    ENCODINGS: Kind(
        "the menu: encodings, variants and presets, joined by +",
        _entries,
        lambda config: MENU,
        lambda config: None if config.encodings else Choices((MENU, "integers", "low-bit")),
    ),
    KEPT: Kind(
        "fractions that apb and apb4 keep, joined by +, in place of the menu's",
        _kept,
        lambda config: MENU,
        lambda config: Choices((MENU, 0.005, 0.02, 0.04)) if _has_apb(config) else None,
    ),
    ACTIVATIONS: Kind("formats of activations: u8, u4, u2, u1, joined by +", _formats, lambda config: MENU),
    ESTIMATOR: Kind(
        "how losses are estimated",
        lambda text: estimator_named(text).name,
        estimator_of,
        lambda config: Choices((estimator_of(config), "separable", "gram")),
    ),
    RECOVERY: Kind(
        "steps and presets of recovery, joined by +",
        _recovery,
        lambda config: AND.join(config.recovery),
        lambda config: Choices((AND.join(config.recovery), "fast", "strong")),
    ),
    RANGE_METHOD: Kind("how activation ranges are found", _one_of(RANGE_METHOD, RANGES), lambda config: config.ranges),
    CALIBRATION: Kind("images that recovery is fitted to, at most", _whole(CALIBRATION, 1), lambda config: 0),
    TUNE_EPOCHS: Kind("epochs of the recovery step tune", _whole(TUNE_EPOCHS, 1), lambda config: config.tune_epochs),
    FINETUNE: Kind("epochs of fine-tuning", _whole(FINETUNE, 0), lambda config: config.finetune),
    BYTES: Kind("share of the byte budget that is planned with", _share(BYTES), lambda config: 1.0),
    LATENCY: Kind("share of the latency target that is planned with", _share(LATENCY), lambda config: 1.0),
}


def _has_apb(config: Config) -> bool:
    return any(isinstance(encoding_of(variant), Apb) for variant in variants_of(config.encodings or None))


def usual_domains(config: Config) -> dict[str, Choices | Range]:
    """What is turned where nothing is said: knobs for which something else than the planner's value is worth a try."""
    found = {name: kind.tried(config) for name, kind in KINDS.items()}
    return {name: domain for name, domain in found.items() if domain is not None}


def planner_value(name: str, config: Config, images: int) -> Value:
    if name.startswith(GROUP):
        return MENU
    if name.startswith(OPTION):
        option = name.removeprefix(OPTION)
        used = parse_settings(config.finetune_options, epochs=max(config.finetune, 1))
        found: Value = used.rate if option == "learning_rate" else getattr(used, option)
        return str(found).lower() if isinstance(found, bool) else found
    return images if name == CALIBRATION else KINDS[name].planner(config)


def parse_knob(network: Network, text: str) -> tuple[str, Choices | Range]:
    name, equals, values = (part.strip() for part in text.partition("="))
    if not (name and equals and values):
        raise UsageError(f"the knob {text!r} must look like 'recovery=fast,strong' or 'kept=0.005..0.05:log'")
    if name.startswith(GROUP):
        layers_matching(network, name.removeprefix(GROUP), f"the knob {name}")
        return name, parse_domain(name, values, _entries)
    if name.startswith(OPTION):
        option = name.removeprefix(OPTION)
        if option not in FINETUNING:
            raise UsageError(
                f"unknown fine-tuning option {option!r} in the knob {name}; {suggestion(option, FINETUNING, 'known options')}"
            )
        return name, parse_domain(name, values, lambda value: _option(option, value))
    if name not in KINDS:
        known = [*KINDS, f"{GROUP}PATTERN", *(f"{OPTION}{option}" for option in FINETUNING)]
        raise UsageError(f"unknown knob {name!r}; {suggestion(name, known, 'knobs')}")
    domain = parse_domain(name, values, KINDS[name].read)
    return name, _few(domain) if name == KEPT and isinstance(domain, Range) else domain


def _few(span: Range) -> Choices:
    """Some numbers of a range in place of all: the losses of every one that is tried have to be measured."""
    if span.step is not None:
        found = np.arange(span.low, span.high + span.step / 2, span.step)
    else:
        found = (np.geomspace if span.log else np.linspace)(span.low, span.high, FEW)
    return Choices(tuple(float(f"{number:.2g}") for number in found))


def _option(option: str, value: str) -> Value:
    found: Value = getattr(parse_settings([f"{option}={value}"]), option)
    return str(found).lower() if isinstance(found, bool) else found
