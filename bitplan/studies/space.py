"""The space of one study: what settings make of configuration, menu and targets."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bitplan.config import Config
from bitplan.encodings import encoding_of
from bitplan.encodings.apb import Apb
from bitplan.errors import UsageError
from bitplan.network import Network
from bitplan.optimizer.study import Choices, Knob, Range, Settings
from bitplan.policies.menu import Menu, layers_matching, menu_for, variants_of
from bitplan.policies.variants import supports
from bitplan.studies.knobs import (
    ACTIVATIONS,
    AND,
    BYTES,
    CALIBRATION,
    ENCODINGS,
    ESTIMATOR,
    FINETUNE,
    GROUP,
    KEPT,
    LATENCY,
    MENU,
    MENU_KNOBS,
    OPTION,
    RANGE_METHOD,
    RECOVERY,
    SHARE,
    TUNE_EPOCHS,
    estimator_of,
    parse_knob,
    planner_value,
    usual_domains,
)
from bitplan.targets import Targets
from bitplan.variant import F32, Variant


@dataclass(frozen=True)
class Space:
    """The knobs of one study of one network, over the configuration that the command was called with."""

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
            loss_profile=Path(text.get(ESTIMATOR, estimator_of(config))),
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

    def largest_menu(self) -> Menu:
        """Every variant that some trial may give a layer."""
        domains = {
            knob.name: knob.domain.values
            for knob in self.knobs
            if isinstance(knob.domain, Choices) and (knob.name in MENU_KNOBS or knob.name.startswith(GROUP))
        }
        found: dict[str, dict[Variant, None]] = {}
        for values in itertools.product(*domains.values()):
            for layer, variants in self.menu_of(dict(zip(domains, values, strict=True))).items():
                found.setdefault(layer, {}).update(dict.fromkeys(variants))
        return {layer: tuple(variants) for layer, variants in found.items()}

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
                if isinstance(encoding_of(variant), Apb)
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
    given = dict(parse_knob(network, text) for text in texts)
    if len(given) < len(texts):
        raise UsageError("a knob is given twice; give all of its values at once, with commas between them")
    domains = given or usual_domains(config)
    for objective, knob in (("bytes", BYTES), ("latency", LATENCY)):
        if objective in objectives:
            domains = {**domains, knob: domains.get(knob, Range(SHARE, 1.0))}
    knobs = [Knob.of(name, domain, planner_value(name, config, images)) for name, domain in domains.items()]
    if not knobs:
        raise UsageError("this study has nothing to turn; name a knob, for example --knob recovery=fast,strong")
    space = Space(network, config, tuple(knobs))
    space.config_of({knob.name: knob.planner for knob in knobs})
    return space
