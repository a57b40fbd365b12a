"""The compiled module, once it is known to belong to this package."""

from __future__ import annotations

from bitplan.compiled import require_same_build
from bitplan.kernels import _runtime

require_same_build(_runtime)

__all__ = ["_runtime"]
