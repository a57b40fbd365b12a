"""What `optimize doctor` shows people."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from bitplan.doctor import examine, table


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
