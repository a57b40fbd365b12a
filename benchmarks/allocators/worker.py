"""The process of one peer: reads one request, a JSON object, and answers one JSON object a line.

{"peer": "hawq", "network": "resnet20", "images": 512, "budgets": [2.5, 4.0]}
-> {"about": "...", "versions": {"torch": "2.14.1"}}
-> {"budget": 2.5, "bits": {"conv1": 8, ...}, "seconds": 12.3}, one for each budget
or {"unavailable": reason}
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import metadata
from typing import Any

from . import PEERS, Unavailable

Assign = Callable[..., Iterator[tuple[float, dict[str, int]]]]


def peer(name: str) -> tuple[Assign, str, Sequence[str]]:
    """What assigns, what readers should know of it, and the packages that it needs. Raises Unavailable."""
    if name not in PEERS:
        raise Unavailable(f"there is no peer {name!r}; there are {', '.join(PEERS)}")
    if name.startswith("modelopt"):
        module = importlib.import_module("allocators.on_modelopt")
        method = "kl_div" if name == "modelopt-kl" else "gradient"
        return partial(module.assign, method=method), module.ABOUT.format(method=method), module.PACKAGES
    module = importlib.import_module({"mct": "allocators.on_mct"}.get(name, f"allocators.{name}"))
    return module.assign, module.ABOUT, module.PACKAGES


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Raises Unavailable, with the remedy, for a package that is not installed."""
    try:
        return {package: metadata.version(package) for package in ("torch", *packages)}
    except metadata.PackageNotFoundError as missing:
        raise Unavailable(f"{missing.name} is not installed; pip install 'bitplan[allocation]'") from None


def respond(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    from .subject import load_subject

    try:
        assign, about, packages = peer(request["peer"])
        yield {"about": about, "versions": versions(packages)}
        subject = load_subject(request["network"], request["images"])
        begin = time.perf_counter()
        for budget, bits in assign(subject, request["budgets"]):
            yield {"budget": budget, "bits": bits, "seconds": round(time.perf_counter() - begin, 1)}
            begin = time.perf_counter()
    except Unavailable as reason:
        yield {"unavailable": str(reason)}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not come between the answers
    for answer in respond(json.loads(sys.stdin.read())):
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
