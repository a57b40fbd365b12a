"""Text is readable in both schemes (WCAG 2, contrast of at least 4.5)."""

from __future__ import annotations

import pytest

from bitplan.report.palette import PALETTE

TEXTS = ("ink", "muted", "ours", "other", "good")


def luminance(colour: str) -> float:
    parts = [part / 255 for part in bytes.fromhex(colour[1:])]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("ground", ["paper", "panel"])
@pytest.mark.parametrize("text", TEXTS)
def test_text_stands_out_from_its_ground(text: str, ground: str, scheme: int) -> None:
    dark, light = sorted(luminance(PALETTE[role][scheme]) for role in (text, ground))
    assert (light + 0.05) / (dark + 0.05) >= 4.5
