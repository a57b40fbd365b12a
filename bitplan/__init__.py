"""Plans, realises and runs mixed-precision networks under a latency target and a byte budget."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitplan.api import Plan, load, plan

__version__ = "0.1.0"
__all__ = ["Plan", "__version__", "load", "plan"]


def __getattr__(name: str) -> Any:
    """What `bitplan.api` offers, imported when it is first asked for: the command starts without it."""
    if name in ("Plan", "load", "plan"):
        return getattr(importlib.import_module("bitplan.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
