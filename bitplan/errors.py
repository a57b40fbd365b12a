"""The errors that bitplan raises on purpose. Their text names the rule, the culprit and the remedy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class BitplanError(Exception):
    """Base of all errors a user can cause and mend; `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(BitplanError):
    """An option, a configuration or a hand-edited file says something that cannot be meant."""

    exit_code = 2


class UnsupportedError(BitplanError):
    """The network holds an operation (or a form of one) that bitplan cannot execute faithfully."""


class DataError(BitplanError):
    """Images, labels or weights are missing, of the wrong shape, or not finite."""


class FileFormatError(BitplanError):
    """An artifact, profile or policy file is damaged, of an unknown version, or not ours."""


class BusyError(BitplanError):
    """Another process is at work on the same files."""


class InfeasibleError(BitplanError):
    """No policy meets the limits; the text says which limits bind and what can be reached. `details`: the same as data,
    {"conflict": [limit, ...], "limits": {limit: {"asked": number, "smallest": number or None}}} in bytes, milliseconds,
    weights and loss; None where it is not known."""

    exit_code = 3

    def __init__(self, text: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(text)
        self.details = None if details is None else dict(details)
