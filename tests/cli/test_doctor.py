"""What `optimize doctor` shows people."""

from __future__ import annotations

from importlib import metadata
from io import StringIO

import pytest
from rich.console import Console

from bitplan.compute import BYTES, FLOATS, KERNELS
from bitplan.doctor import DEVELOPERS, EXTRAS, INSTRUCTIONS, active_kernels, examine, lacking_features, table
from bitplan.encodings import ENCODINGS
from bitplan.kernels import _runtime
from bitplan.packages import installed
from bitplan.profiles.fingerprint import FEATURES, this_machine


def shown(findings: dict[str, object]) -> str:
    console = Console(width=200, file=StringIO(), record=True)
    console.print(table(findings))
    return console.export_text()


def test_brackets_in_findings_are_shown() -> None:
    text = shown(
        {
            "python": "3.11 [free threading]",
            "packages": {"torch": None, "numpy": "2.0[local]"},
            "missing": ["torch: capturing needs it: pip install 'bitplan[torch]'"],
            "device_profile": None,
        }
    )
    assert "pip install 'bitplan[torch]'" in text
    assert "3.11 [free threading]" in text
    assert "torch missing, numpy 2.0[local]" in text
    assert "[red]" not in text


def test_every_extra_is_listed_with_what_it_is_for_and_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = {"torch", "optuna", "ray", "ruff"}
    there = installed
    monkeypatch.setattr("bitplan.doctor.installed", lambda name: None if name in absent else there(name))
    findings = examine()
    declared = set(metadata.metadata("bitplan").get_all("Provides-Extra") or ())
    assert set(findings["extras"]) == declared
    for extra, found in findings["extras"].items():
        assert found["for"] == (EXTRAS | DEVELOPERS)[extra]  # a new one has to be named
    missing = "\n".join(findings["missing"])
    assert "torch: for capturing, profiling and carrying out networks: pip install 'bitplan[torch]'" in missing
    assert "optuna: for optimize study: pip install 'bitplan[study]'" in missing
    assert "ray: for --backend ray and dask: pip install 'bitplan[cluster]'" in missing
    assert "ruff" not in missing  # for those who work on bitplan
    assert "missing: ruff" in " ".join(shown(findings).replace("\u2502", " ").split())


def test_everything_examined_is_shown() -> None:
    findings = examine()
    text = shown(findings)
    assert all(name.replace("_", " ") in text for name in findings)
    assert str(findings["isa_active"]) in text


def test_every_encoding_shows_its_kernels_with_the_default_first() -> None:
    found = active_kernels("avx512vnni")
    assert found["float32@f32"] == "floats (VFMADD)"
    assert found["int4@u8,u4,u2,u1"] == "bytes (VPDPBUSD)"
    assert found["apb@u8"] == "bytes (VPDPBUSD)"
    assert found["apb@u4,u2,u1"] == "bits (VPOPCNTD), lookup (VPSHUFB), bytes (VPDPBUSD)"
    assert {name.partition("@")[0] for name in found} == {encoding.name for encoding in ENCODINGS}
    assert active_kernels("portable")["binary@u4,u2,u1"] == "bits, lookup, bytes"
    text = shown({"kernels": found})
    assert "apb@u4,u2,u1 bits (VPOPCNTD), lookup" in text


def test_every_level_but_the_portable_one_has_its_instructions() -> None:
    assert {*_runtime.all_isas()} - {"portable"} <= set(INSTRUCTIONS)
    assert all(set(instructions) == set(KERNELS) for instructions in INSTRUCTIONS.values())
    assert examine()["kernels"]["float32@f32"].startswith(FLOATS)
    assert examine()["kernels"]["int8@u8,u4,u2,u1"].startswith(BYTES)


def test_a_level_that_cannot_run_shows_the_features_that_are_lacking() -> None:
    avx2 = dict.fromkeys(["avx2", "fma"], True)
    levels = {
        "avx512vnni": avx2 | {"avx512_vnni": True, "avx512vbmi": False, "gfni": False},
        "avx2": avx2,
        "portable": {},
    }
    lacks = lacking_features(levels)
    assert lacks == {"avx512vnni": ["avx512vbmi", "gfni"]}
    assert "avx512vnni needs avx512vbmi, gfni" in shown({"isa_lacks": lacks})
    assert "isa lacks" in shown({"isa_lacks": {}}) and "nothing" in shown({"isa_lacks": {}})


def test_levels_lack_features_exactly_where_they_cannot_run() -> None:
    levels = _runtime.level_features()
    assert list(levels) == _runtime.all_isas()
    lacks = examine()["isa_lacks"]
    assert [level for level in levels if level not in lacks] == _runtime.isa_levels()
    known = set(this_machine().features)
    younger = {
        "avx_vnni",
        "amx_tile",
        "amx_int8",
    }  # than some kernels of the system, which do not list or not save them
    for needs in levels.values():
        assert {name for name, there in needs.items() if there} - known <= younger
        assert {name for name, there in needs.items() if not there} & known <= younger


def test_the_fingerprint_knows_every_feature_that_a_level_needs() -> None:
    assert {name for needs in _runtime.level_features().values() for name in needs} <= set(FEATURES)
