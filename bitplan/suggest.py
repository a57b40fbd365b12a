"""The end of an error about a name: the one that was probably meant, or the known ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SHOWN = 12


def suggestion(name: str, known: Iterable[str], what: str = "known names") -> str:
    """`did you mean 'int4'?` where a known name is close, else `known names are ...` (at most twelve of them)."""
    names = list(dict.fromkeys(known))
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return f"did you mean {alternatives(map(repr, close))}?"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{what} are {', '.join(names[:SHOWN])}{more}" if names else f"there are no {what}"


def alternatives(names: Iterable[str]) -> str:
    """`u8, u4 or u2`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
