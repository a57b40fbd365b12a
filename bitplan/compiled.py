"""The handshake between this package and its compiled modules, which an upgrade or a change of sources can leave behind."""

from __future__ import annotations

from types import ModuleType

from bitplan import __version__
from bitplan.errors import BitplanError

INTERFACE = 3
"""What the compiled modules offer and expect; one more with every change of it. The build reads it here."""


class OutdatedBuildError(BitplanError, ImportError):
    """A compiled module belongs to another version of the package."""


def require_same_build(module: ModuleType) -> None:
    """Raises OutdatedBuildError unless the compiled module was built from these sources' version and interface."""
    version, interface = getattr(module, "version", "unknown"), getattr(module, "interface", 0)
    if (version, interface) != (__version__, INTERFACE):
        raise OutdatedBuildError(
            f"the compiled module {module.__name__} ({module.__file__}) is of bitplan {version}, interface {interface}, but "
            f"the package is bitplan {__version__}, interface {INTERFACE}; install bitplan again"
        )
