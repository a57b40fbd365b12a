"""The menu: encodings, presets, pins and exclusions, and clear words for what cannot be meant."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bitplan.encodings import BY_NAME, default_menu
from bitplan.errors import UsageError
from bitplan.network import Conv2d, Input, Linear, Mean, Network, Node
from bitplan.policies.menu import load_preset, menu_for, preset_names, variants_of
from bitplan.variant import FLOAT32, Variant

CONV = Conv2d((3, 3), padding=(1, 1, 1, 1))
NETWORK = Network(
    (
        Node("x", Input(), (), (3, 8, 8)),
        Node("conv", CONV, ("x",), (8, 8, 8)),
        Node("blocks.0.conv", CONV, ("conv",), (8, 8, 8)),
        Node("blocks.1.conv", CONV, ("blocks.0.conv",), (8, 8, 8)),
        Node("pool", Mean(), ("blocks.1.conv",), (8,)),
        Node("fc", Linear(), ("pool",), (10,)),
    ),
    ("fc",),
)
INT8, INT4 = Variant("int8"), Variant("int4")


def apb(kept: float) -> Variant:
    return Variant("apb", "u8", (("kept", kept),))


def test_without_a_wish_every_layer_gets_the_whole_menu() -> None:
    menu = menu_for(NETWORK)
    assert list(menu) == ["conv", "blocks.0.conv", "blocks.1.conv", "fc"]
    assert set(menu.values()) == {default_menu()}


def test_encodings_variants_and_presets_mix_in_order_and_once() -> None:
    assert variants_of(["int4", "apb:kept=0.3", "eight-bit", "int4"]) == (INT4, apb(0.3), FLOAT32, INT8)
    assert variants_of(["apb"]) == tuple(map(apb, (0.005, 0.01, 0.02, 0.04)))


def test_a_format_of_activations_stands_behind_the_encoding() -> None:
    assert variants_of(["binary@u2", "ternary@u1", "binary@u8"]) == (
        Variant("binary", "u2"),
        Variant("ternary", "u1"),
        Variant("binary"),
    )
    assert variants_of(["apb@u2:kept=0.02"]) == (Variant("apb", "u2", (("kept", 0.02),)),)
    assert variants_of(["apb@u2"]) == tuple(replace(apb(kept), activation="u2") for kept in (0.005, 0.01, 0.02, 0.04))
    assert variants_of(["float32@f32"]) == (FLOAT32,)
    assert menu_for(NETWORK, pins=["fc=apb@u1:kept=0.3"])["fc"] == (Variant("apb", "u1", (("kept", 0.3),)),)
    assert {variant.activation for variant in default_menu()} == {"f32", "u8"}


def test_below_8_bits_layers_with_groups_are_left_out() -> None:
    nodes = list(NETWORK.nodes)
    nodes[2] = replace(nodes[2], op=replace(CONV, groups=8))
    network = Network(tuple(nodes), ("fc",))
    menu = menu_for(network, encodings=["binary@u2", "int8"])
    assert menu["blocks.0.conv"] == (INT8,) and menu["conv"] == (Variant("binary", "u2"), INT8)
    with pytest.raises(UsageError, match=r"layer 'blocks.0.conv' supports none of binary@u2, apb@u1; add an encoding"):
        menu_for(network, encodings=["binary@u2", "apb@u1"])
    with pytest.raises(UsageError, match=r"pin '.*': layer 'blocks.0.conv' cannot be binary@u2: it has 8 groups"):
        menu_for(network, pins=["bl*=binary@u2"])


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_that_ships_is_sound(name: str) -> None:
    preset = load_preset(name)
    assert preset.variants and preset.description
    assert name not in BY_NAME, "a preset must not hide an encoding"
    assert variants_of([name]) == preset.variants


def test_the_presets_are_what_their_names_say() -> None:
    assert {"default", "integers", "low-bit", "eight-bit"} <= set(preset_names())
    assert load_preset("default").variants == default_menu()
    assert {v.encoding for v in load_preset("integers").variants} == {"int8", "int4", "int3", "int2"}
    assert FLOAT32 not in load_preset("low-bit").variants and INT8 not in load_preset("low-bit").variants
    low = load_preset("low-activations").variants
    assert {v.activation for v in low} == {"f32", "u8", "u4", "u2", "u1"}
    assert {v.encoding for v in low if v.activation in ("u2", "u1")} == {"binary", "ternary", "apb"}


def test_a_preset_file_of_the_users(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("encodings: [int8, 'apb:kept=0.1']\n")
    assert variants_of([str(path)]) == (INT8, apb(0.1))


@pytest.mark.parametrize(
    "text, rule",
    [
        ("encodings: []", "with at least one entry"),
        ("encodings: int8", "must be a list"),
        ("encodings: [8]", "must be a list"),
        ("encodings: [int9]", "must look like|unknown encoding 'int9'"),
        ("encodings: [int8]\nencoding: x", "unknown key 'encoding'; a preset has only"),
        ("encodings: [int8]\nencodings: [int4]", "'encodings' stands there twice"),
        ("- int8", "must hold lines of the form"),
        ("encodings: [", "not valid YAML"),
        ("description: 3\nencodings: [int8]", "description must be a text"),
        ("encodings: !!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_a_wrong_preset_file_is_named_with_the_rule(tmp_path: Path, text: str, rule: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=rule) as caught:
        load_preset(str(path))
    assert str(path) in str(caught.value)


def test_pins_and_exclusions_replace_the_menu_of_their_layers() -> None:
    menu = menu_for(NETWORK, encodings=["int4"], pins=["blocks.*=int8", "fc = apb:kept=0.2"], exclude=["conv"])
    assert menu == {"conv": (FLOAT32,), "blocks.0.conv": (INT8,), "blocks.1.conv": (INT8,), "fc": (apb(0.2),)}


def test_a_pin_to_an_encoding_leaves_its_parameters_open() -> None:
    assert menu_for(NETWORK, pins=["fc=apb"])["fc"] == BY_NAME["apb"].variants


def test_an_exact_name_beats_a_pattern_whatever_their_order() -> None:
    for pins in (["*=int4", "blocks.0.conv=int8"], ["blocks.0.conv=int8", "*=int4"]):
        menu = menu_for(NETWORK, pins=pins)
        assert menu["blocks.0.conv"] == (INT8,) and menu["blocks.1.conv"] == (INT4,)


def test_rules_that_agree_are_one_rule() -> None:
    assert menu_for(NETWORK, pins=["fc=float32"], exclude=["fc"])["fc"] == (FLOAT32,)


@pytest.mark.parametrize(
    "wishes, rule",
    [
        ({"encodings": ["int44"]}, "unknown encoding or preset 'int44'; did you mean 'int4'"),
        ({"encodings": ["low-bits"]}, "unknown encoding or preset 'low-bits'; did you mean 'low-bit'"),
        ({"encodings": ["apb:kept=0.51"]}, "kept of encoding apb is 0.51; it must be above 0 and at most 0.5"),
        ({"encodings": ["apb:kept=0"]}, "must be above 0"),
        ({"encodings": ["apb:kept=nan"]}, "must be above 0"),
        ({"encodings": ["apb:kept"]}, "must look like 'kept=0.01'"),
        ({"encodings": ["int8:kept=0.1"]}, "encoding int8 has no parameter 'kept'"),
        ({"encodings": []}, "no encoding is on the menu"),
        ({"encodings": ["binary@u3"]}, "encoding binary runs with activations in u8, u4, u2 or u1, not 'u3'"),
        ({"encodings": ["binary@"]}, "encoding binary runs with activations in u8, u4, u2 or u1, not ''"),
        ({"encodings": ["float32@u8"]}, "encoding float32 runs with activations in f32, not 'u8'"),
        ({"encodings": ["apb@f32:kept=0.1"]}, "encoding apb runs with activations in u8, u4, u2 or u1, not 'f32'"),
        ({"encodings": ["bnary@u2"]}, "unknown encoding or preset 'bnary@u2'; did you mean 'binary'"),
        ({"pins": ["fc=int7@u2"]}, "pin 'fc=int7@u2': unknown encoding 'int7'"),
        ({"encodings": ["nowhere.yaml"]}, "cannot read nowhere.yaml"),
        ({"pins": ["block.0.conv=int8"]}, "no layer 'block.0.conv'; did you mean 'blocks.0.conv'"),
        ({"pins": ["nothing.*=int8"]}, r"pin 'nothing.\*=int8': the network has no layer 'nothing.\*'"),
        ({"pins": ["pool=int8"]}, r"'pool' is an operation \(Mean\) without weights"),
        ({"pins": ["fc"]}, "must look like 'layer=encoding'"),
        ({"pins": ["=int8"]}, "must look like 'layer=encoding'"),
        ({"pins": ["fc=int7"]}, "pin 'fc=int7': unknown encoding 'int7'; did you mean"),
        ({"pins": ["fc=int8", "fc=int4"]}, "pin 'fc=int8' and pin 'fc=int4' contradict each other about layer 'fc'"),
        ({"pins": ["fc=int8"], "exclude": ["fc"]}, "pin 'fc=int8' and exclude 'fc' contradict each other"),
        ({"exclude": ["FC"]}, "exclude 'FC': the network has no layer 'FC'"),
    ],
)
def test_what_cannot_be_meant_is_refused(wishes: dict[str, list[str]], rule: str) -> None:
    with pytest.raises(UsageError, match=rule):
        menu_for(NETWORK, **wishes)


def test_an_unsupported_layer_loses_the_variant_and_cannot_be_pinned_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(BY_NAME["binary"]), "supports", lambda self, shape: shape.kernel == (3, 3))
    menu = menu_for(NETWORK, encodings=["binary", "int8"])
    assert menu["fc"] == (INT8,) and menu["conv"] == (Variant("binary"), INT8)
    with pytest.raises(UsageError, match="layer 'fc' supports none of binary; add an encoding or exclude"):
        menu_for(NETWORK, encodings=["binary"])
    assert menu_for(NETWORK, encodings=["binary"], exclude=["fc"])["fc"] == (FLOAT32,)
    with pytest.raises(UsageError, match=r"pin '\*=binary': layer 'fc' cannot be binary: .* be stored as binary"):
        menu_for(NETWORK, pins=["*=binary"])
