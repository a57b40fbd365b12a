"""Where bytes went between two policies of one network."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from bitplan.policies.policy import Policy


def moved_layers(before: Policy, after: Policy) -> list[dict[str, Any]]:
    """The layers that have another variant, in the network's order: `layer`, `before`, `after` (variants), `bytes_before`,
    `bytes_after`."""
    old = {layer.name: layer for layer in before.layers}
    return [
        {
            "layer": layer.name,
            "before": str(old[layer.name].variant),
            "after": str(layer.variant),
            "bytes_before": old[layer.name].bytes,
            "bytes_after": layer.bytes,
        }
        for layer in after.layers
        if layer.variant != old[layer.name].variant
    ]


def moved_table(moved: list[dict[str, Any]]) -> Table:
    """The same for people."""
    table = Table(title="bytes move between layers", title_style="bold")
    for heading in ("layer", "before", "after", "bytes", "change"):
        table.add_column(heading, justify="right" if heading in ("bytes", "change") else "left")
    for row in moved:
        change = row["bytes_after"] - row["bytes_before"]
        table.add_row(row["layer"], row["before"], row["after"], f"{row['bytes_after']:,}", f"{change:+,}")
    return table
