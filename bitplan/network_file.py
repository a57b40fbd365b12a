"""A Network as JSON, so that a plan can be made where neither torch nor the network's code is."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from math import inf
from pathlib import Path
from typing import Any

from bitplan.errors import FileFormatError
from bitplan.network import OPS, Activation, Network, Node, Preprocessing

VERSION = 1
OP_BY_NAME = {op.__name__: op for op in OPS}


def network_to_json(network: Network) -> str:
    """The text of a network file; infinite bounds of activations are written as null."""
    nodes = [
        {
            "name": node.name,
            "op": type(node.op).__name__,
            **({"fields": _plain(asdict(node.op))} if fields(node.op) else {}),
            "inputs": node.inputs,
            "shape": node.shape,
        }
        for node in network
    ]
    preprocessing = asdict(network.preprocessing)
    content = {"version": VERSION, "preprocessing": preprocessing, "outputs": network.outputs}
    lines = ",\n".join("  " + json.dumps(node) for node in nodes)
    return json.dumps(content)[:-1] + ', "nodes": [\n' + lines + "\n]}\n"


def read_network(path: Path) -> Network:
    """Reads a network file. Raises FileFormatError naming the file and what is wrong with it."""
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["version"] != VERSION:
            raise ValueError(
                f"version {content['version']} is not {VERSION}; make the file again with 'optimize profile'"
            )
        nodes = tuple(_node(entry) for entry in content["nodes"])
        return Network(nodes, tuple(content["outputs"]), Preprocessing(**_tuples(content["preprocessing"])))
    except OSError as error:
        raise FileFormatError(f"network file {path}: {error.strerror}; make it with 'optimize profile'") from error
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(
            f"network file {path} cannot be read: {error}; make it again with 'optimize profile'"
        ) from error


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    activation = values.get("activation")
    if activation:
        activation["low"] = None if activation["low"] == -inf else activation["low"]
        activation["high"] = None if activation["high"] == inf else activation["high"]
    return values


def _tuples(values: Any) -> Any:
    """Lists become tuples, all the way down."""
    if isinstance(values, list):
        return tuple(_tuples(value) for value in values)
    if isinstance(values, dict):
        return {key: _tuples(value) for key, value in values.items()}
    return values


def _node(entry: dict[str, Any]) -> Node:
    values = _tuples(entry.get("fields", {}))
    if "activation" in values:
        a = values["activation"]
        low, high = (-inf if a["low"] is None else a["low"]), (inf if a["high"] is None else a["high"])
        values["activation"] = Activation(a["kind"], low, high)
    if entry["op"] not in OP_BY_NAME:
        raise ValueError(f"node {entry['name']!r} has the unknown operation {entry['op']!r}")
    return Node(entry["name"], OP_BY_NAME[entry["op"]](**values), _tuples(entry["inputs"]), _tuples(entry["shape"]))
