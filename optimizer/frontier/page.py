"""A frontier as one self-contained HTML page: no network is needed to read it."""

from __future__ import annotations

import json
from html import escape
from importlib import resources
from pathlib import Path

from bitplan.atomic_file import write_atomically
from bitplan.optimizer.frontier import Frontier
from bitplan.optimizer.frontier.file import summary


def write_page(path: Path, frontier: Frontier, title: str, command: str) -> None:
    """Writes atomically. `command`: carries a point out when its name is appended. Raises OSError where that fails."""
    rows = summary(frontier.points)
    for row, point in zip(rows, frontier.points, strict=True):
        row["layers"] = [[layer.name, str(layer.variant), layer.bytes] for layer in point.policy.layers]
    data = {"points": rows, "scale": frontier.scale, "command": command, "finished": frontier.finished}
    # a closing tag in a layer's name must not end the script
    text = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    template = (resources.files("bitplan.optimizer.frontier") / "page.html").read_text("utf-8")
    write_atomically(path, template.replace("@TITLE@", escape(title)).replace("@DATA@", text).encode())
