"""Passwords in addresses stay out of what is written down."""

from __future__ import annotations

import re

HIDDEN = "***"
LOGIN = re.compile(r"(?<=://)([^\s/@:'\"]*):[^\s/@'\"]+@")
"""`user:password@` of an address."""
PARAMETER = re.compile(r"(?i)([?&][a-z_]*(?:password|passwd|secret|token|key)=)[^\s&'\"]+")


def redacted(text: str) -> str:
    """The text with the passwords of addresses (of databases and clusters) hidden."""
    return PARAMETER.sub(rf"\1{HIDDEN}", LOGIN.sub(rf"\1:{HIDDEN}@", text))
