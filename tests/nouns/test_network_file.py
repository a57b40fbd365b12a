from __future__ import annotations

from pathlib import Path

import pytest

from bitplan.errors import FileFormatError
from bitplan.network import (
    IDENTITY,
    RELU,
    RELU6,
    Activate,
    Activation,
    Add,
    AveragePool,
    Concat,
    Conv2d,
    Input,
    Linear,
    MaxPool,
    Mean,
    Mul,
    Network,
    Node,
    Pad,
    Permute,
    Preprocessing,
    Reshape,
    ScaleShift,
    Slice,
    Softmax,
)
from bitplan.network_file import network_to_json, read_network

OPS = [
    Conv2d((3, 5), (2, 1), (1, 0, 2, 1), (1, 2), 4, RELU6),
    Linear(RELU),
    ScaleShift(IDENTITY),
    Activate(Activation("hard_swish")),
    Add(RELU),
    Mul(),
    Concat(),
    MaxPool((3, 3), (2, 2), (1, 1, 1, 1)),
    AveragePool((2, 2), (2, 2), count_padding=False),
    Mean(keep=True),
    Pad((0, 1, 0, 1), (2, 3), 0.5),
    Slice(((0, 4, 1), (0, 8, 2), (1, 8, 2))),
    Reshape(),
    Permute((1, 2, 0)),
    Softmax(),
]


def test_every_operation_survives_the_file(tmp_path: Path) -> None:
    nodes = [Node("x", Input(), (), (4, 8, 8))]
    nodes += [Node(f"n{i}", op, ("x",), (4, 8, 8)) for i, op in enumerate(OPS)]
    network = Network(tuple(nodes), ("n0", "n3"), Preprocessing((1.0, 2.0), (3.0, 4.0), 256, 224))
    path = tmp_path / "network.json"
    path.write_text(network_to_json(network))
    again = read_network(path)
    assert again == network
    assert again.content_hash == network.content_hash


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "cannot be read"),
        ("{}", "version"),
        ('{"version": 9}', "version 9"),
        ('{"version": 1, "preprocessing": {}, "outputs": ["x"], "nodes": [{"name": "x", "op": "Warp"}]}', "'Warp'"),
        ('{"version": 1, "preprocessing": {}, "outputs": ["x"], "nodes": []}', "output 'x'"),
    ],
)
def test_damaged_files_are_refused_by_name(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "network.json"
    path.write_text(text)
    with pytest.raises(FileFormatError, match=complaint) as error:
        read_network(path)
    assert str(path) in str(error.value)


def test_a_missing_file_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="optimize profile"):
        read_network(tmp_path / "none.json")
