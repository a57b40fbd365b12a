"""The user's own functions, named `pkg.mod:function`; modules in the current folder are found."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import io
import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from bitplan.errors import BitplanError, UsageError
from bitplan.suggest import suggestion

PRINTED = "bitplan.printed"
"""The logger that is told what the user's code prints: standard output belongs to the command's result."""
FUNCTION_SPEC = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def require_package(name: str, purpose: str, extra: str = "torch") -> None:
    """Raises UsageError with the remedy where an optional package is not installed."""
    if importlib.util.find_spec(name) is None:
        raise UsageError(f"{purpose} needs the package {name!r}; install it with: pip install 'bitplan[{extra}]'")


def import_function(spec: str, what: str) -> Callable[..., Any]:
    """The function behind `pkg.mod:function`; `what` (`model`, `data`, `metric`) is named in errors.

    Raises UsageError where the form is wrong, the module cannot be imported, or it has no such function."""
    module_name, _, name = spec.partition(":")
    if not FUNCTION_SPEC.fullmatch(spec) or module_name.endswith(".py"):
        raise UsageError(
            f"{what} {spec!r} must look like 'pkg.mod:function'; name the module as in an import, without .py"
        )
    with _users_code():
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise UsageError(
                    f"{what} {spec!r}: importing {module_name} failed: {error}; install what it lacks"
                ) from error
            raise UsageError(
                f"{what} {spec!r}: there is no module {error.name!r}, neither installed nor in {Path.cwd()}; "
                "run the command in the folder that holds it, or install it"
            ) from None
        except BitplanError:
            raise
        except (Exception, SystemExit) as error:
            raise UsageError(
                f"{what} {spec!r}: importing {module_name} failed with {type(error).__name__}: {error}"
                f"; mend the module: python -c 'import {module_name}' shows where"
            ) from error
    function = getattr(module, name, None)
    if not callable(function):
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UsageError(
            f"{what} {spec!r}: module {module_name} ({getattr(module, '__file__', 'built in')}) has no function "
            f"{name!r}; {suggestion(name, functions, 'its functions')}"
        )
    found: Callable[..., Any] = function
    return found


def definition_of(spec: str, function: Callable[..., Any]) -> str:
    """The name of a user's function and the SHA-256 of the file that defines it, so that results of an edited one are told
    from those of the old; the name alone where there is no such file."""
    try:
        source = inspect.getsourcefile(function)
    except TypeError:  # a class's instance, say
        source = getattr(sys.modules.get(spec.partition(":")[0]), "__file__", None)
    if source is None or not Path(source).is_file():
        return spec
    return f"{spec} {hashlib.sha256(Path(source).read_bytes()).hexdigest()}"


def call_function(spec: str, what: str) -> Any:
    """Imports and calls `pkg.mod:function` without arguments. Raises UsageError where it cannot be called so, or
    with the user's own exception as the cause."""
    function = import_function(spec, what)
    with _users_code():
        try:
            return function()
        except BitplanError:
            raise
        except (Exception, SystemExit) as error:
            raise UsageError(
                f"{what} {spec!r}: the function, called without arguments, raised {type(error).__name__}: {error}"
                "; mend it, or name another"
            ) from error


@contextmanager
def _users_code() -> Iterator[None]:
    """Modules of the current folder can be imported, and what is printed is heard by who listens."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        if logging.getLogger(PRINTED).hasHandlers():
            with redirect_stdout(_Lines()):
                yield
        else:
            yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


class _Lines(io.TextIOBase):
    """Each whole line that is written is told to the logger PRINTED."""

    def __init__(self) -> None:
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            logging.getLogger(PRINTED).info(line)
        return len(text)
