"""Compiled modules of another version are refused."""

from __future__ import annotations

from types import ModuleType

import pytest

from bitplan import __version__
from bitplan.compiled import INTERFACE, OutdatedBuildError, require_same_build
from bitplan.encodings import _trellis
from bitplan.kernels import _runtime


def module(**values: object) -> ModuleType:
    made = ModuleType("bitplan.kernels._runtime")
    made.__file__ = "/somewhere/_runtime.so"
    made.__dict__.update(values)
    return made


@pytest.mark.parametrize("compiled", [_runtime, _trellis])
def test_the_modules_as_built_belong_to_the_package(compiled: ModuleType) -> None:
    require_same_build(compiled)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"version": __version__},
        {"version": __version__, "interface": INTERFACE + 1},
        {"version": "0.0.1", "interface": INTERFACE},
    ],
)
def test_others_are_refused_with_file_and_remedy(values: dict[str, object]) -> None:
    with pytest.raises(OutdatedBuildError, match=r"/somewhere/_runtime.so.*install bitplan again"):
        require_same_build(module(**values))
