"""What is run: the artifact and the C++ runtime that executes it. `Runtime` is imported on first use, so that writing
artifacts needs no compiled module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitplan.kernels.runtime import Runtime

__all__ = ["Runtime"]


def __getattr__(name: str) -> Any:
    if name == "Runtime":
        from bitplan.kernels.runtime import Runtime

        return Runtime
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
