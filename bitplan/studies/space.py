"""The knobs of `optimize study`: how their values are written, and what they make of configuration, menu and targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bitplan.config import Config
from bitplan.encodings import encoding_of
from bitplan.errors import UsageError
from bitplan.network import Network
from bitplan.optimizer.study import Choices, Knob, Range, Settings, Value, parse_domain
from bitplan.policies.menu import Menu, layers_matching, menu_for, variants_of
from bitplan.policies.realise.finetune.settings import READERS as FINETUNING
from bitplan.policies.realise.finetune.settings import parse_settings
from bitplan.policies.variants import check_variant, supports
from bitplan.profiles.estimators import DEFAULT, estimator_named
from bitplan.recovery_names import RANGES, steps_named
from bitplan.suggest import suggestion
from bitplan.targets import Targets
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


def _estimator(config: Config) -> str:
    return DEFAULT if config.loss_profile is None else str(config.loss_profile)


KINDS: Mapping[str, Kind] = {
    ENCODINGS: Kind(
        "the menu: encodings, variants and presets, joined by +",
        _entries,
        lambda config: MENU,
        lambda config: None if config.encodings else Choices((MENU, "integers", "low-bit")),
    ),
    KEPT: Kind(
        "fractions that apb keeps, joined by +, in place of the menu's",
        _kept,
        lambda config: MENU,
        lambda config: Choices((MENU, 0.005, 0.02, 0.04)) if _has_apb(config) else None,
    ),
    ACTIVATIONS: Kind("formats of activations: u8, u4, u2, u1, joined by +", _formats, lambda config: MENU),
    ESTIMATOR: Kind(
        "how losses are estimated",
        lambda text: estimator_named(text).name,
        _estimator,
        lambda config: Choices((_estimator(config), "separable", "gram")),
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
    return any(variant.encoding == "apb" for variant in variants_of(config.encodings or None))


@dataclass(frozen=True)
class Space:
    """The knobs of one study of one network. `images`: those that recovery is fitted to where nothing else is said."""

    network: Network
    config: Config
    knobs: tuple[Knob, ...]

    def config_of(self, settings: Settings) -> Config:
        """The configuration under which a trial is carried out. Losses are compared, never read as predictions: no link."""
        config, text = self.config, {name: str(value) for name, value in settings.items()}
        epochs = int(settings.get(FINETUNE, config.finetune))
        options = {o.partition("=")[0].strip(): o for o in config.finetune_options}
        options |= {
            n.removeprefix(OPTION): f"{n.removeprefix(OPTION)}={v}" for n, v in text.items() if n.startswith(OPTION)
        }
        training: dict[str, Any] = {"finetune": epochs, "finetune_options": tuple(options.values())}
        if not epochs:
            training |= {"finetune_options": (), "finetune_time": None, "train_data": None, "loss": None}
        return replace(
            config,
            encodings=self._entries(settings) or (),
            loss_profile=Path(text.get(ESTIMATOR, _estimator(config))),
            recovery=tuple(text[RECOVERY].split(AND)) if RECOVERY in text else config.recovery,
            ranges=text.get(RANGE_METHOD, config.ranges),
            calibration_size=int(settings.get(CALIBRATION, 0)) or config.calibration_size,
            tune_epochs=int(settings.get(TUNE_EPOCHS, config.tune_epochs)),
            link_policies=0,
            polish=0,
            jobs=1,
            **training,
        )

    def menu_of(self, settings: Settings) -> Menu:
        """The variants that each layer may get. Layers that are pinned or excluded keep theirs."""
        entries = self._entries(settings)
        menu = menu_for(self.network, encodings=entries, pins=self.config.pin, exclude=self.config.exclude)
        free = menu_for(self.network, encodings=entries)
        for name, variants in menu.items():
            if variants == free[name]:
                shape = self.network.weight_shape(self.network.by_name[name])
                changed = tuple(v for v in _with_activations(variants, settings) if supports(v, shape))
                menu[name] = changed or variants
        for knob, value in settings.items():
            if not knob.startswith(GROUP) or value == MENU:
                continue
            for name in layers_matching(self.network, knob.removeprefix(GROUP), f"the knob {knob}"):
                shape = self.network.weight_shape(self.network.by_name[name])
                own = tuple(v for v in variants_of(str(value).split(AND)) if supports(v, shape))
                menu[name] = own or menu[name]
        return menu

    def targets_of(self, settings: Settings, limits: Targets) -> Targets:
        """What is planned under: the loss is least within shares of the limits."""
        share, faster = float(settings.get(BYTES, 1.0)), float(settings.get(LATENCY, 1.0))
        return replace(
            limits,
            bytes=None if limits.bytes is None else int(share * limits.bytes),
            latency=None if limits.latency is None else faster * limits.latency,
            loss=None,
            max_drop=None,
            objective="loss",
        )

    def _entries(self, settings: Settings) -> tuple[str, ...] | None:
        """The entries of the menu behind `encodings` and `kept`; None for the default menu."""
        named, kept = str(settings.get(ENCODINGS, MENU)), settings.get(KEPT, MENU)
        entries = self.config.encodings or None if named == MENU else tuple(named.split(AND))
        if kept == MENU:
            return entries
        shares = [float(f"{float(part):.3g}") for part in str(kept).split(AND)]
        found = [
            changed
            for variant in variants_of(entries)
            for changed in (
                [replace(variant, parameters=(("kept", share),)) for share in shares]
                if variant.encoding == "apb"
                else [variant]
            )
        ]
        return tuple(dict.fromkeys(map(str, found)))


def _with_activations(variants: Sequence[Variant], settings: Settings) -> list[Variant]:
    formats = str(settings.get(ACTIVATIONS, MENU))
    if formats == MENU:
        return list(variants)
    found = [
        replace(variant, activation=form)
        for variant in variants
        for form in ([variant.activation] if variant.activation == F32 else formats.split(AND))
        if form in encoding_of(variant).activations
    ]
    return list(dict.fromkeys(found))


def space_of(network: Network, config: Config, texts: Sequence[str], objectives: Sequence[str], images: int) -> Space:
    """The knobs that `--knob NAME=VALUES` name, or the usual ones where none is given; where bytes or latency are objectives,
    shares of the limits on them too, for they are what trades one for the other. Raises UsageError."""
    given = dict(_parsed(network, text) for text in texts)
    if len(given) < len(texts):
        raise UsageError("a knob is given twice; give all of its values at once, with commas between them")
    domains = given or _usual(config)
    for objective, knob in (("bytes", BYTES), ("latency", LATENCY)):
        if objective in objectives:
            domains = {**domains, knob: domains.get(knob, Range(SHARE, 1.0))}
    knobs = [Knob.of(name, domain, _planner(name, config, images)) for name, domain in domains.items()]
    if not knobs:
        raise UsageError("this study has nothing to turn; name a knob, for example --knob recovery=fast,strong")
    space = Space(network, config, tuple(knobs))
    space.config_of({knob.name: knob.planner for knob in knobs})
    return space


def _usual(config: Config) -> dict[str, Choices | Range]:
    """What is turned where nothing is said: knobs for which something else than the planner's value is worth a try."""
    found = {name: kind.tried(config) for name, kind in KINDS.items()}
    return {name: domain for name, domain in found.items() if domain is not None}


def _planner(name: str, config: Config, images: int) -> Value:
    if name.startswith(GROUP):
        return MENU
    if name.startswith(OPTION):
        option = name.removeprefix(OPTION)
        used = parse_settings(config.finetune_options, epochs=max(config.finetune, 1))
        found: Value = used.rate if option == "learning_rate" else getattr(used, option)
        return str(found).lower() if isinstance(found, bool) else found
    return images if name == CALIBRATION else KINDS[name].planner(config)


def _parsed(network: Network, text: str) -> tuple[str, Choices | Range]:
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
