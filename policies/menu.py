"""The menu: which variants each layer may get, from encodings, presets, pins and exclusions."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from bitplan.encodings import BY_NAME, default_menu
from bitplan.errors import UsageError
from bitplan.network import Network
from bitplan.policies.variants import parse_variants, supports, why_not
from bitplan.suggest import suggestion
from bitplan.variant import FLOAT32, Variant
from bitplan.yaml_file import read_mapping, read_mapping_file

Menu = dict[str, tuple[Variant, ...]]


@dataclass(frozen=True, slots=True)
class Preset:
    """A named menu: `presets/<name>.yaml` of this package, or a file of the user's."""

    name: str
    description: str
    variants: tuple[Variant, ...]


def preset_names() -> tuple[str, ...]:
    """The presets that come with the package, in alphabetical order."""
    folder = resources.files("bitplan.policies") / "presets"
    return tuple(sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")))


def load_preset(name: str) -> Preset:
    """A preset by its name, or by the path of a .yaml file. Raises UsageError."""
    if name.endswith((".yaml", ".yml")):
        source: str = name
        content = read_mapping_file(Path(name))
    elif name in preset_names():
        source = f"preset {name}"
        content = read_mapping(
            (resources.files("bitplan.policies") / "presets" / f"{name}.yaml").read_text("utf-8"), source
        )
    else:
        raise UsageError(f"unknown preset {name!r}; {suggestion(name, preset_names(), 'presets')}")
    for key in content:
        if key not in ("description", "encodings"):
            raise UsageError(f"{source}: unknown key {key!r}; a preset has only description and encodings")
    description, entries = content.get("description", ""), content.get("encodings")
    if not isinstance(description, str):
        raise UsageError(f"{source}: description must be a text")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, str) for entry in entries):
        raise UsageError(f"{source}: encodings must be a list such as [int8, 'apb:kept=0.02'] with at least one entry")
    variants: list[Variant] = []
    for entry in entries:
        try:
            variants += parse_variants(entry)
        except UsageError as error:
            raise UsageError(f"{source}: {error}") from None
    return Preset(name, description, tuple(dict.fromkeys(variants)))


def variants_of(entries: Sequence[str] | None) -> tuple[Variant, ...]:
    """The variants behind a list of encodings (`int4`, `apb@u2`), variants (`apb:kept=0.03`), presets (`low-bit`) and
    preset files (`mine.yaml`), in order and each once; None stands for every variant of every encoding on its usual
    activations. Raises UsageError."""
    if entries is None:
        return default_menu()
    found: list[Variant] = []
    for entry in entries:
        found += _entry(entry.strip())
    if not found:
        raise UsageError(f"no encoding is on the menu; name at least one of {', '.join(BY_NAME)}")
    return tuple(dict.fromkeys(found))


def _entry(entry: str) -> tuple[Variant, ...]:
    if entry in preset_names() or entry.endswith((".yaml", ".yml")):
        return load_preset(entry).variants
    if entry.partition(":")[0].partition("@")[0] in BY_NAME:
        return parse_variants(entry)
    hint = suggestion(entry, (*BY_NAME, *preset_names()), "encodings and presets")
    raise UsageError(f"unknown encoding or preset {entry!r}; {hint}")


def menu_for(
    network: Network, *, encodings: Sequence[str] | None = None, pins: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Menu:
    """The variants that each layer of the network may get, in the network's order of layers.

    encodings: see `variants_of`; a layer's menu has those of them that its shape supports.
    pins: `layer=encoding` or `layer=variant`; replaces the layer's menu, whether or not `encodings` has it there.
    exclude: layers kept in float32.
    Layers are named exactly or by a pattern (`blocks.*.conv1`); an exact name beats a pattern, otherwise two rules
    for one layer must agree. Raises UsageError for names that are unknown, rules that contradict each other, a pin
    that the layer does not support, and a layer that is left without any variant.
    """
    offered = variants_of(encodings)
    menu: Menu = {}
    for layer in network.layers:
        shape = network.weight_shape(layer)
        menu[layer.name] = tuple(v for v in offered if supports(v, shape))
    for name, (variants, rule) in _rules(network, pins, exclude).items():
        shape = network.weight_shape(network.by_name[name])
        menu[name] = tuple(v for v in variants if supports(v, shape))
        if not menu[name]:
            raise UsageError(f"{rule}: layer {name!r} cannot be {variants[0]}: {why_not(variants[0], shape)}")
    for name, variants in menu.items():
        if not variants:
            names = ", ".join(dict.fromkeys(str(replace(v, parameters=())) for v in offered))
            raise UsageError(f"layer {name!r} supports none of {names}; add an encoding or exclude the layer")
    return menu


def _rules(network: Network, pins: Sequence[str], exclude: Sequence[str]) -> dict[str, tuple[tuple[Variant, ...], str]]:
    """By layer: the variants that a pin or an exclusion leaves it, and that rule's text."""
    exact: dict[str, tuple[tuple[Variant, ...], str]] = {}
    matched: dict[str, tuple[tuple[Variant, ...], str]] = {}
    for rule, pattern, variants in [*map(_pin, pins), *((f"exclude {p!r}", p.strip(), (FLOAT32,)) for p in exclude)]:
        names = layers_matching(network, pattern, rule)
        chosen = exact if names == (pattern,) else matched
        for name in names:
            earlier = chosen.setdefault(name, (variants, rule))
            if earlier[0] != variants:
                raise UsageError(f"{earlier[1]} and {rule} contradict each other about layer {name!r}; drop one")
    return matched | exact


def _pin(pin: str) -> tuple[str, str, tuple[Variant, ...]]:
    rule = f"pin {pin!r}"
    pattern, equals, text = (part.strip() for part in pin.partition("="))
    if not (pattern and equals and text):
        raise UsageError(f"{rule} must look like 'layer=encoding', for example 'conv1=int8' or 'fc*=apb:kept=0.02'")
    try:
        return rule, pattern, parse_variants(text)
    except UsageError as error:
        raise UsageError(f"{rule}: {error}") from None


def layers_matching(network: Network, pattern: str, rule: str) -> tuple[str, ...]:
    """The layers whose name is or matches `pattern` (case counts). Raises UsageError, led by `rule`, where there is
    none."""
    names = [layer.name for layer in network.layers]
    if pattern in names:
        return (pattern,)
    found = tuple(name for name in names if fnmatch.fnmatchcase(name, pattern))
    if found:
        return found
    if pattern in network.by_name:
        operation = type(network.by_name[pattern].op).__name__
        raise UsageError(
            f"{rule}: {pattern!r} is an operation ({operation}) without weights, so it has no encoding; name a layer"
        )
    raise UsageError(f"{rule}: the network has no layer {pattern!r}; {suggestion(pattern, names, 'its layers')}")
