"""Two results side by side."""

from __future__ import annotations

from typing import Any

from bitplan.report.facts import Facts, folder_name, relative


def compare_facts(ours: Facts, theirs: Facts) -> Facts:
    """Figures of both, and the layers that have another encoding; `change` is (ours - theirs) / theirs."""
    rows = [
        *_rows(ours, theirs, "measured"),
        {
            "name": "accuracy" if _kind(ours) == "accuracy" else "agreement",
            "unit": "%",
            "ours": _worth(ours),
            "theirs": _worth(theirs) if _kind(ours) == _kind(theirs) else None,
            "change": None,
            "basis": "measured",
        },
        *_rows(ours, theirs, "predicted"),
    ]
    first = {layer["name"]: layer for layer in ours["layers"]}
    second = {layer["name"]: layer for layer in theirs["layers"]}
    layers = [
        {"name": name, **{f"{key}_{whose}": (side.get(name) or {}).get(key)
                          for key in ("encoding", "bytes", "predicted_ms")
                          for whose, side in (("ours", first), ("theirs", second))}}
        for name in dict.fromkeys([*first, *second])
    ]  # fmt: skip
    changed = sum(row["encoding_ours"] != row["encoding_theirs"] for row in layers)
    names = _names(ours, theirs)
    return {
        "folder": theirs["folder"],
        "ours": names[0],
        "theirs": names[1],
        "status": theirs["status"],
        "same_network": _network(ours) == _network(theirs),
        "changed": changed,
        "quantities": [row for row in rows if row["ours"] is not None or row["theirs"] is not None],
        "layers": layers,
    }


def _rows(ours: Facts, theirs: Facts, basis: str) -> list[dict[str, Any]]:
    others = {row["name"]: row[basis] for row in theirs["quantities"]}
    mine = {row["name"]: row for row in ours["quantities"]}
    return [
        {
            "name": name,
            "unit": mine.get(name, {"unit": ""})["unit"],
            "ours": mine.get(name, {}).get(basis),
            "theirs": others.get(name),
            "change": relative(others.get(name), mine.get(name, {}).get(basis)),
            "basis": basis,
        }
        for name in dict.fromkeys([*mine, *others])
    ]


def _names(ours: Facts, theirs: Facts) -> tuple[str, str]:
    """The folders' names; their paths where the names are the same."""
    names = folder_name(ours), folder_name(theirs)
    return names if names[0] != names[1] else (ours["folder"], theirs["folder"])


def _kind(facts: Facts) -> Any:
    return facts["worth"] and facts["worth"]["kind"]


def _worth(facts: Facts) -> Any:
    return facts["worth"] and facts["worth"]["value"]


def _network(facts: Facts) -> Any:
    return facts["provenance"]["hashes"].get("network")
