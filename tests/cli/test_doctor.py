"""What `optimize doctor` shows people."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from bitplan.compute import BYTES, FLOATS, KERNELS
from bitplan.doctor import INSTRUCTIONS, active_kernels, examine, table
from bitplan.encodings import ENCODINGS
from bitplan.kernels import _runtime


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
