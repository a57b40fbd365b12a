"""Assignments of other tools as policies. `mct.json` and `modelopt.json` are what MCT 2.6 and ModelOpt 0.47 gave for the
embedded example, written by the lines of docs/interchange.md."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bitplan.errors import FileFormatError, UsageError
from bitplan.network import Conv2d, Input, Linear, Mean, Network, Node
from bitplan.network_file import network_to_json
from bitplan.policies.assignments import read_assignments
from bitplan.policies.policy_file import read_policy, validate_against
from bitplan.variant import Variant

HERE = Path(__file__).parent
EXAMPLE = [
    "conv",
    *(f"blocks.{i}.conv{j}" for i in (0, 1) for j in (1, 2)),
    *("blocks.2.conv1", "blocks.2.conv2", "blocks.2.shortcut.0", "blocks.3.conv1", "blocks.3.conv2"),
    *("blocks.4.conv1", "blocks.4.conv2", "blocks.4.shortcut.0", "blocks.5.conv1", "blocks.5.conv2"),
    "classifier",
]


def chain(layers: list[str]) -> Network:
    """A network whose layers have these names, the last of them linear."""
    nodes = [Node("x", Input(), (), (4, 5, 5))]
    for name in layers[:-1]:
        nodes.append(Node(name, Conv2d((1, 1)), (nodes[-1].name,), (4, 5, 5)))
    nodes.append(Node("mean", Mean(), (nodes[-1].name,), (4,)))
    nodes.append(Node(layers[-1], Linear(), ("mean",), (3,)))
    return Network(tuple(nodes), (layers[-1],))


def encodings(path: Path, source: str, layers: list[str], **options: Any) -> list[str]:
    return [str(variant) for variant in read_assignments(path, source, layers, **options).variants.values()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(folder: Path, content: Any) -> Path:
    path = folder / "peer.json"
    path.write_text(json.dumps(content))
    return path


def test_what_mct_gave() -> None:
    found = read_assignments(HERE / "mct.json", "mct", EXAMPLE)
    assert found.unknown == found.notes == ()
    assert found.variants["blocks.2.conv1"] == Variant("int8")
    assert found.variants["blocks.2.conv2"] == Variant("int4")
    assert found.variants["blocks.5.conv2"] == Variant("int2")
    assert found.variants["classifier"] == Variant("int8")
    assert len(found.variants) == 16


def test_what_modelopt_gave() -> None:
    found = read_assignments(HERE / "modelopt.json", "modelopt", EXAMPLE)
    assert found.unknown == found.notes == ()
    assert [str(v) for v in found.variants.values()] == [
        *("float32", "float32", "int8", "int8", "int8", "int8", "int8", "int8"),
        *("int8", "int8", "int4", "int8", "int8", "int4", "int4", "int8"),
    ]


def test_a_policy_that_realise_carries_out(folder: Path, command: Callable[..., Any]) -> None:
    network = chain(EXAMPLE)
    (folder / "out").mkdir()
    (folder / "out" / "network.json").write_text(network_to_json(network))
    for source in ("mct", "modelopt"):
        called = command(
            *("policy", "import", str(HERE / f"{source}.json"), "--from", source),
            *("--network", "out", "-o", "mine.json", "--json"),
        )
        assert called.code == 0, called.err
        assert called.json["policy"] == "mine.json"
        policy = validate_against(read_policy(folder / "mine.json"), network)
        assert {name: str(v) for name, v in policy.variants.items()} == called.json["layers"]
        assert policy.certificate.status == "given"
        assert policy.settings["imported_from"] == source
        assert all(layer.bytes > 0 for layer in policy.layers)


def test_patterns_hold_in_order(folder: Path) -> None:
    """Configurations that were written by hand: the last entry that fits counts."""
    entries = [
        {"quantizer_name": "*", "enable": False},
        {"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": 4, "axis": 0}},
        {"quantizer_name": "*input_quantizer", "cfg": {"num_bits": 4}},
        {"quantizer_name": "a.*weight_quantizer", "cfg": {"num_bits": 8}, "enable": True},
        {"quantizer_name": "c.weight_quantizer", "enable": False},
        {"parent_class": "nn.Linear", "quantizer_name": "*", "enable": False},
        {"quantizer_name": "gone.weight_quantizer", "cfg": {"num_bits": 8}},
    ]
    path = written(folder, {"quant_cfg": entries, "algorithm": "max"})
    found = read_assignments(path, "modelopt", ["a.x", "b", "c"], grouped=["a.x"])
    assert [str(variant) for variant in found.variants.values()] == ["int8", "int4@u4", "float32"]
    assert found.notes == ("a.x: a layer with groups reads 8 bits here, not 4",)
    assert found.unknown == ("gone",)
    older = {
        "*weight_quantizer": {"num_bits": 8, "axis": 0},
        "*input_quantizer": {"num_bits": 8},
        "default": {"enable": False},
    }
    assert encodings(written(folder, {"quant_cfg": older}), "modelopt", ["a.x", "b"]) == ["int8", "int8"]


def test_formats_that_we_do_not_have(folder: Path) -> None:
    entries = [
        {"quantizer_name": "a.weight_quantizer", "cfg": {"num_bits": [4, 3]}},
        {"quantizer_name": "b.weight_quantizer", "cfg": {"num_bits": 7}},
        {"quantizer_name": "b.input_quantizer", "enable": False},
    ]
    path = written(folder, {"quant_cfg": entries})
    with pytest.raises(
        UsageError, match=r"layer 'a': its weights are floats of 8 bits.*layer 'c': the file does not speak.*--rest"
    ):
        read_assignments(path, "modelopt", ["a", "b", "c"])
    in_turn = [{"num_bits": 4}, {"num_bits": [4, 3]}]  # quantised twice
    twice = written(folder, {"quant_cfg": [{"quantizer_name": "a.weight_quantizer", "cfg": in_turn}]})
    with pytest.raises(UsageError, match="layer 'a': its weights are of the format"):
        read_assignments(twice, "modelopt", ["a"])
    path = written(folder, {"quant_cfg": entries})
    found = read_assignments(path, "modelopt", ["a", "b", "c"], Variant("ternary"))
    assert [str(variant) for variant in found.variants.values()] == ["ternary", "int8", "ternary"]
    assert "b: 7 bits become int8" in found.notes
    assert any(note.startswith("b: its input of floats becomes 8 bits") for note in found.notes)


def test_names_are_matched_or_named(folder: Path) -> None:
    layers = ["features.0", "features.1.conv", "fc"]
    path = written(folder, {"features_0_bn": 8, "features_1_conv": 4, "fc": 16, "add_3": 8})
    found = read_assignments(path, "mct", layers)
    assert [str(variant) for variant in found.variants.values()] == ["int8", "int4", "float32"]
    assert found.unknown == ("add_3",)
    assert found.notes == ("fc: 16 bits become float32",)
    with pytest.raises(UsageError, match="names no layer of the network: it names other"):
        read_assignments(written(folder, {"other": 8}), "mct", layers)
    with pytest.raises(UsageError, match="'fc_bn' is layer 'fc', which stands there under another name too"):
        read_assignments(written(folder, {"fc": 8, "fc_bn": 4}), "mct", layers)
    with pytest.raises(UsageError, match=r"'a\.b' and 'a_b' have the same name 'a_b'"):
        read_assignments(written(folder, {"a_b": 8}), "mct", ["a.b", "a_b"])


@pytest.mark.parametrize("content", [[], {"a": "8"}, {"a": True}, {"quant_cfg": "all"}, {"quant_cfg": [{"cfg": {}}]}])
def test_other_files_are_refused(folder: Path, content: Any) -> None:
    path = written(folder, content)
    for source in ("mct", "modelopt"):
        with pytest.raises(FileFormatError, match=r"peer\.json.*docs/interchange\.md"):
            read_assignments(path, source, ["a"])


def test_wrong_use_is_said(folder: Path, command: Callable[..., Any]) -> None:
    called = command("policy", "import", str(HERE / "mct.json"), "--from", "tflite")
    assert called.code == 2
    (folder / "network.json").write_text(network_to_json(chain(["conv", "fc"])))
    path = written(folder, {"conv": 8})
    called = command("policy", "import", str(path), "--from", "mct", "--network", "network.json", "--rest", "int9")
    assert called.code == 2
    assert "int9" in called.err
    called = command("policy", "import", str(path), "--from", "mct", "--network", "network.json")
    assert called.code == 2
    assert "layer 'fc': the file does not speak of it" in called.err
    assert not (folder / "policy.json").exists()
    (folder / "broken.json").write_text("{")
    called = command("policy", "import", "broken.json", "--from", "mct", "--network", "network.json")
    assert called.code == 1
    assert "not a JSON file" in called.err


def test_every_width_of_even_levels_has_its_encoding(tmp_path: Path) -> None:
    path = tmp_path / "bits.json"
    path.write_text(json.dumps({f"layer{bits}": bits for bits in range(2, 9)}))
    found = read_assignments(path, "mct", [f"layer{bits}" for bits in range(2, 9)])
    assert [v.encoding for v in found.variants.values()] == ["int2", "int3", "int4", "int5", "int6", "int8", "int8"]
    assert found.notes == ("layer7: 7 bits become int8",)
