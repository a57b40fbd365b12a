"""The colours by their role, in light and dark; the page, SVG and PNG files share them."""

from __future__ import annotations

PALETTE = {
    "paper": ("#ffffff", "#14161a"),
    "panel": ("#f6f7f9", "#1c1f25"),
    "ink": ("#1a1d21", "#e8eaed"),
    "muted": ("#5a626d", "#a3abb6"),
    "line": ("#dfe3e8", "#343942"),
    "ours": ("#0b5cad", "#7ab8ff"),
    "other": ("#a83a12", "#ffa27a"),
    "good": ("#116b3c", "#62d394"),
}
"""(light, dark). Text is in `ink`, `muted`, `ours`, `other` or `good`, which stand out from `paper` and `panel`."""


def variables() -> str:
    """CSS that defines `--ROLE` for both schemes."""
    light = "".join(f"--{role}:{pair[0]};" for role, pair in PALETTE.items())
    dark = "".join(f"--{role}:{pair[1]};" for role, pair in PALETTE.items())
    return (
        f":root{{color-scheme:light dark;{light}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
    )


def shape_classes() -> str:
    """CSS that gives shapes their fill (`.f-ROLE`) and stroke (`.s-ROLE`)."""
    return "".join(f".f-{role}{{fill:var(--{role})}}.s-{role}{{stroke:var(--{role})}}" for role in PALETTE)
