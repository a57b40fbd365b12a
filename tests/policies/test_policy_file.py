"""The policy file: what is written is read back; what is edited is noticed; what is wrong is named."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitplan.errors import FileFormatError, UsageError
from bitplan.policies import policy_file
from bitplan.policies.policy import Certificate, LayerPolicy, Policy
from bitplan.policies.policy_file import policy_hash, read_policy, write_policy
from bitplan.targets import Targets
from bitplan.variant import FLOAT32, Variant

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
APB = Variant("apb", "u8", (("kept", 0.02),))


BINARY_U2 = LayerPolicy("blocks.1.conv", Variant("binary", "u2"), 424, 0.05, 0.01, "lookup")


def sample() -> Policy:
    """The policy of the kept file of version 1."""
    return Policy(
        layers=(
            LayerPolicy("stem.conv", FLOAT32, 1792, 0.31, 0.0),
            LayerPolicy("blocks.0.conv", Variant("int4"), 1224, 0.12, 0.0042),
            LayerPolicy("fc", APB, 1248, None, None),
        ),
        targets=Targets(latency=0.02, bytes=2_000_000, max_drop=0.01, full_precision_weights=0.05),
        predicted={"file_bytes": 4936, "resident_bytes": 9000, "latency_ms": 0.5, "loss": 0.0042},
        certificate=Certificate("optimal", 0.0042, 0.0041, 0.02, 1.5, "cp-sat"),
        hashes={"network": "ab" * 32},
        settings={"threads": 1, "batch": 1, "loss_metric": "kl"},
    )


def sample_2() -> Policy:
    """The same with what version 2 added."""
    apb = LayerPolicy("fc2", replace(APB, activation="u1"), 1248, 0.01, 0.002)
    return replace(sample(), layers=(*sample().layers, BINARY_U2, apb))


def edited(tmp_path: Path, change: Any) -> Path:
    """The sample's file after `change(content)`."""
    path = tmp_path / "policy.json"
    write_policy(path, sample())
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("policy", [sample(), sample_2()], ids=["1", "2"])
def test_a_policy_comes_back_as_it_was_written(tmp_path: Path, policy: Policy) -> None:
    write_policy(tmp_path / "policy.json", policy)
    assert read_policy(tmp_path / "policy.json") == policy


def test_each_layer_takes_one_line(tmp_path: Path) -> None:
    write_policy(tmp_path / "policy.json", sample())
    lines = (tmp_path / "policy.json").read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if "stem.conv" in line)
    assert [json.loads(line.rstrip(","))["name"] for line in lines[first : first + 3]] == [
        layer.name for layer in sample().layers
    ]


def test_the_kept_files_of_all_versions_still_read() -> None:
    assert read_policy(GOLDEN / "policy-v1.json") == sample()
    assert read_policy(GOLDEN / "policy-v2.json") == sample_2()


def test_the_decision_hash_never_changes() -> None:
    assert policy_hash(sample()).hex() == "8aebfec60850f0577e51a6714d7466f895a93eaebbcc3c955236a0a653c49755"
    assert policy_hash(sample_2()).hex() == "2af00d1ad61c5eb2dab8961a4e7a1cc9fa4b3aa4617c3b86a676004ff6bbab47"


def test_a_kernel_is_written_and_hashed_where_it_is_not_the_usual_one(tmp_path: Path) -> None:
    kernels = [layer.kernel for layer in sample_2().layers]
    assert kernels == ["floats", "bytes", "bytes", "lookup", "bits"] == list(sample_2().kernels.values())
    write_policy(tmp_path / "p.json", sample_2())
    entries = json.loads((tmp_path / "p.json").read_text())["layers"]
    assert [entry.get("kernel") for entry in entries] == [None, None, None, "lookup", None]
    assert [entry.get("activation") for entry in entries] == [None, None, None, "u2", "u1"]
    hashes = {policy_hash(Policy((replace(BINARY_U2, kernel=kernel),))) for kernel in ("bits", "lookup", "bytes")}
    assert len(hashes) == 3
    assert policy_hash(Policy((replace(BINARY_U2, kernel=""),))) in hashes


def test_an_edited_kernel_is_an_edited_decision(tmp_path: Path) -> None:
    write_policy(tmp_path / "p.json", sample_2())
    content = json.loads((tmp_path / "p.json").read_text())
    content["layers"][3]["kernel"] = "bytes"
    (tmp_path / "p.json").write_text(json.dumps(content))
    policy = read_policy(tmp_path / "p.json")
    assert policy.kernels["blocks.1.conv"] == "bytes"
    assert policy.certificate == Certificate("given") and not policy.predicted
    assert {(layer.latency_ms, layer.loss) for layer in policy.layers} == {(None, None)}
    assert [layer.bytes for layer in policy.layers] == [layer.bytes for layer in sample_2().layers]


def test_the_hash_covers_the_decision_and_nothing_else() -> None:
    policy = sample()
    others = replace(policy, targets=Targets(), predicted={}, certificate=Certificate(), hashes={}, settings={})
    reordered = replace(policy, layers=tuple(replace(layer, bytes=1, loss=9.0) for layer in reversed(policy.layers)))
    assert policy_hash(others) == policy_hash(reordered) == policy_hash(policy)
    for layer in (
        replace(policy.layers[2], variant=Variant("apb", "u8", (("kept", 0.01),))),
        replace(policy.layers[2], variant=Variant("int2")),
        replace(policy.layers[2], name="fc2"),
    ):
        assert policy_hash(replace(policy, layers=(*policy.layers[:2], layer))) != policy_hash(policy)


def test_an_edited_decision_loses_its_certificate_and_predictions(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["layers"][1]["encoding"] = "int8"

    policy = read_policy(edited(tmp_path, change))
    assert policy.variants["blocks.0.conv"] == Variant("int8")
    assert policy.certificate == Certificate("given") and not policy.predicted
    assert policy.targets == sample().targets and policy.hashes == sample().hashes


def test_an_edited_prediction_leaves_the_certificate(tmp_path: Path) -> None:
    path = edited(tmp_path, lambda content: content["predicted"].update(loss=1.0))
    assert read_policy(path).certificate == sample().certificate


def test_a_file_written_by_hand_needs_only_names_and_encodings(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    layers = [{"name": "a", "encoding": "float32"}, {"name": "b", "encoding": "apb", "parameters": {"kept": 0.3}}]
    path.write_text(json.dumps({"format": "bitplan policy", "version": 1, "layers": layers}))
    assert read_policy(path).variants == {"a": FLOAT32, "b": Variant("apb", "u8", (("kept", 0.3),))}


def test_numbers_that_are_not_finite_are_written_as_unknown(tmp_path: Path) -> None:
    policy = replace(
        sample(),
        certificate=Certificate("feasible", 0.1, -np.inf, np.inf, np.float64(2.0), "highs"),
        predicted={"loss": float("nan"), "file_bytes": np.int64(12)},  # type: ignore[dict-item]
    )
    write_policy(tmp_path / "p.json", policy)
    text = (tmp_path / "p.json").read_text()
    assert "Infinity" not in text and "NaN" not in text
    read = read_policy(tmp_path / "p.json")
    assert read.certificate == Certificate("feasible", 0.1, None, None, 2.0, "highs")
    assert read.predicted == {"loss": None, "file_bytes": 12}


def test_a_policy_that_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    layer = sample().layers[0]
    for wrong in (
        Policy((layer, layer)),
        Policy((LayerPolicy("a", Variant("int9"), 1),)),
        Policy((LayerPolicy("a", Variant("int8", "f32"), 1),)),
        Policy((LayerPolicy("a", Variant("float32", "u8"), 1),)),
        Policy((LayerPolicy("a", Variant("int8"), 1, kernel="bits"),)),
        Policy((layer,), certificate=Certificate("guessed")),
        Policy((layer,), settings={"model": object()}),
    ):
        with pytest.raises(UsageError):
            write_policy(tmp_path / "p.json", wrong)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.json"
    write_policy(path, sample())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_policy(path, Policy(()))
    assert read_policy(path) == sample() and [p.name for p in tmp_path.iterdir()] == ["p.json"]


WRONG_LAYERS = {
    "unknown encoding": ({"encoding": "int44"}, r"layer 'fc': unknown encoding 'int44'; did you mean 'int4'.*ternary"),
    "far-off encoding": ({"encoding": "zzz"}, r"layer 'fc': unknown encoding 'zzz'; known are float32, int8"),
    "fraction too large": (
        {"parameters": {"kept": 0.6}},
        r"layer 'fc': parameter kept .* 0.6; it must be .* at most 0.5",
    ),
    "fraction zero": ({"parameters": {"kept": 0}}, r"layer 'fc': parameter kept .* above 0"),
    "too many digits": ({"parameters": {"kept": 0.01234567}}, r"layer 'fc': .*at most six digits"),
    "unknown parameter": ({"parameters": {"keep": 0.1}}, r"layer 'fc': .*no parameter 'keep'; it has only kept"),
    "missing parameter": ({"parameters": {}}, r"layer 'fc': .*needs the parameter 'kept', for example kept=0.005"),
    "parameter of another": ({"encoding": "int8"}, r"layer 'fc': encoding int8 has no parameter 'kept'; it has none"),
    "format without kernels": ({"activation": "f32"}, r"layer 'fc': .* in u8, u4, u2 or u1, not 'f32'"),
    "unknown format": ({"activation": "u3"}, r"layer 'fc' \(layers\[2\].activation\): 'u3' is not one of .*'u2'"),
    "kernel of others": ({"kernel": "bits"}, r"layer 'fc': apb:kept=0.02 runs on the kernel bytes, not 'bits'; leave"),
    "kernel of some": (
        {"activation": "u2", "kernel": "floats"},
        r"layer 'fc': apb@u2:kept=0.02 runs on the kernel bits, lookup or bytes, not 'floats'",
    ),
    "unknown kernel": ({"kernel": "magic"}, r"layer 'fc' \(layers\[2\].kernel\): 'magic' is not one of \['floats',"),
    "duplicate": ({"name": "stem.conv"}, r"layer 'stem.conv' stands there twice \(again as layers\[2\]\)"),
    "misspelt key": (
        {"encodng": "int8"},
        r"layer 'fc' \(layers\[2\]\): unknown key 'encodng'; did you mean 'encoding'",
    ),
    "bytes as text": ({"expected": {"bytes": "12"}}, r"layer 'fc' \(layers\[2\].expected.bytes\): '12' is not of type"),
    "truth as number": ({"parameters": {"kept": True}}, r"layer 'fc' .*True is not of type 'number'"),
}


@pytest.mark.parametrize("entry, rule", WRONG_LAYERS.values(), ids=WRONG_LAYERS)
def test_a_wrong_layer_is_named_with_the_rule(tmp_path: Path, entry: dict[str, Any], rule: str) -> None:
    path = edited(tmp_path, lambda content: content["layers"][2].update(entry))
    with pytest.raises(UsageError, match=rule) as caught:
        read_policy(path)
    assert str(caught.value).startswith(str(path))


WRONG_FILES = {
    "empty": (b"", "not valid JSON"),
    "no JSON": (b"{'a': 1}", "not valid JSON: .* line 1, column 2"),
    "not text": (b"\xff\xfe\x00", "not a JSON text"),
    "nested too deeply": (b"[" * 100_000, "not a JSON text"),
    "another JSON": (b'{"version": 1}', "not a policy file"),
    "a list": (b"[]", "not a policy file"),
    "newer": (
        b'{"format": "bitplan policy", "version": 3, "layers": []}',
        "version 3.*up to version 2: install a newer",
    ),
    "version zero": (b'{"format": "bitplan policy", "version": 0, "layers": []}', "version is 0"),
    "version true": (b'{"format": "bitplan policy", "version": true, "layers": []}', "version is True"),
    "doubled key": (b'{"format": "bitplan policy", "version": 1, "layers": [], "layers": []}', "'layers' stands twice"),
    "NaN": (
        b'{"format": "bitplan policy", "version": 1, "layers": [], "predicted": {"loss": NaN}}',
        "NaN is not a finite",
    ),
    "overflow": (
        b'{"format": "bitplan policy", "version": 1, "layers": [], "predicted": {"loss": 1e999}}',
        "1e999 is not",
    ),
}


@pytest.mark.parametrize("text, rule", WRONG_FILES.values(), ids=WRONG_FILES)
def test_what_is_not_a_policy_file_is_refused(tmp_path: Path, text: bytes, rule: str) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(text)
    with pytest.raises(FileFormatError, match=rule):
        read_policy(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"nowhere\.json: No such file"):
        read_policy(tmp_path / "nowhere.json")


def test_missing_and_unknown_top_level_keys_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the key 'layers' is missing; add it"):
        read_policy(edited(tmp_path, lambda content: content.pop("layers")))
    with pytest.raises(UsageError, match="unknown key 'layer'; did you mean 'layers'"):
        read_policy(edited(tmp_path, lambda content: content.update(layer=[])))
    with pytest.raises(UsageError, match=r"targets: unknown key 'latency'"):
        read_policy(edited(tmp_path, lambda content: content["targets"].update(latency=1)))


def test_an_old_version_is_upgraded_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = edited(tmp_path, lambda content: content.update(version=1))
    seen: list[int] = []

    def upgrade(content: dict[str, Any]) -> dict[str, Any]:
        seen.append(content["version"])
        return content

    monkeypatch.setattr(policy_file, "VERSION", 3)
    monkeypatch.setattr(policy_file, "UPGRADES", {1: upgrade, 2: upgrade})
    monkeypatch.setattr(policy_file, "checked", lambda content, source: content)
    assert read_policy(path).layers == sample().layers
    assert seen == [1, 2]


def test_every_older_version_has_an_upgrade() -> None:
    assert set(policy_file.UPGRADES) == set(range(1, policy_file.VERSION))


def test_the_layout_does_not_drift(tmp_path: Path) -> None:
    write_policy(tmp_path / "policy.json", sample_2())
    assert (tmp_path / "policy.json").read_text() == (GOLDEN / "policy-v2.json").read_text()


def test_the_documents_examples_are_true(tmp_path: Path) -> None:
    document = (resources.files("bitplan.policies") / "FORMAT.md").read_text("utf-8")
    example = json.loads(document.split("```json\n")[1].split("```")[0])
    del example["decision"]
    path = tmp_path / "p.json"
    path.write_text(json.dumps(example))
    hashed = re.search(r'`(\{"version":1.*?\})`', document)
    assert hashed and hashlib.sha256(hashed[1].encode()).digest() == policy_hash(read_policy(path))
