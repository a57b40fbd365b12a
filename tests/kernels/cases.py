"""What the runtime is compared with its reference on: operations, layers and networks, and how outputs are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitplan.compute import kernels_for
from bitplan.kernels import Runtime
from bitplan.network import (
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
    Op,
    Pad,
    Permute,
    Reshape,
    ScaleShift,
    Shape,
    Slice,
    Softmax,
)
from bitplan.variant import F32, U1, U2, U4, U8, Variant

from .networks import Case, network_of

INT8 = Variant("int8")
HARD_SWISH, SILU = Activation("hard_swish"), Activation("silu")
SIGMOID, HARD_SIGMOID = Activation("sigmoid"), Activation("hard_sigmoid")

OPERATIONS: list[tuple[Op, list[Shape], Shape]] = [
    (ScaleShift(RELU), [(5, 4, 3)], (5, 4, 3)),
    (ScaleShift(), [(37,)], (37,)),
    (ScaleShift(), [(3, 7)], (3, 7)),
    (Activate(RELU6), [(5, 9, 7)], (5, 9, 7)),
    (Activate(HARD_SWISH), [(5, 9, 7)], (5, 9, 7)),
    (Activate(SILU), [(33,)], (33,)),
    (Activate(SIGMOID), [(5, 4, 3)], (5, 4, 3)),
    (Activate(HARD_SIGMOID), [(5, 4, 3)], (5, 4, 3)),
    (Activate(Activation("clamp", -0.5, 0.75)), [(70, 9, 9)], (70, 9, 9)),
    (Add(RELU), [(6, 5, 4), (6, 5, 4)], (6, 5, 4)),
    (Add(), [(6, 5, 4), (6, 1, 1)], (6, 5, 4)),
    (Add(), [(19,), (19,)], (19,)),
    (Mul(), [(6, 5, 4), (6, 1, 1)], (6, 5, 4)),
    (Mul(SIGMOID), [(6, 5, 4), (6, 5, 4)], (6, 5, 4)),
    (Concat(), [(3, 5, 4), (8, 5, 4), (1, 5, 4)], (12, 5, 4)),
    (Concat(), [(3,), (8,)], (11,)),
    (Concat(), [(2, 5), (3, 5)], (5, 5)),
    (MaxPool((2, 2), (2, 2)), [(5, 8, 7)], (5, 4, 3)),
    (MaxPool((3, 3), (2, 2), (1, 1, 1, 1)), [(5, 8, 7)], (5, 4, 4)),
    (MaxPool((3, 2), (1, 2), (1, 0, 0, 1), (2, 1)), [(70, 8, 7)], (70, 5, 4)),
    (AveragePool((3, 3), (2, 2), (1, 1, 1, 1)), [(5, 8, 7)], (5, 4, 4)),
    (AveragePool((3, 3), (1, 1), (1, 1, 1, 1), False), [(5, 8, 7)], (5, 8, 7)),
    (AveragePool((2, 3), (2, 1), (0, 1, 0, 2), False), [(5, 8, 7)], (5, 4, 7)),
    (Mean(), [(5, 8, 7)], (5,)),
    (Mean(True), [(300, 3, 2)], (300, 1, 1)),
    (Pad((1, 2, 0, 3), (2, 1), 0.0), [(5, 4, 3)], (8, 7, 6)),
    (Pad((0, 0, 0, 0), (0, 3), -0.25), [(5, 4, 3)], (8, 4, 3)),
    (Slice(((1, 5, 2), (0, 4, 1), (0, 3, 2))), [(5, 4, 3)], (2, 4, 2)),
    (Slice(((3, 20, 4),)), [(21,)], (5,)),
    (Slice(((1, 3, 1), (0, 7, 3))), [(3, 7)], (2, 3)),
    (Reshape(), [(5, 4, 3)], (60,)),
    (Reshape(), [(60,)], (5, 4, 3)),
    (Reshape(), [(6, 4, 5)], (4, 30, 1)),
    (Reshape(), [(6, 4, 6)], (4, 12, 3)),
    (Reshape(), [(6, 4, 5)], (2, 3, 4, 5)),
    (Reshape(), [(2, 3, 4, 5)], (6, 4, 5)),
    (Reshape(), [(6, 4)], (3, 8)),
    (Permute((1, 2, 0)), [(5, 4, 3)], (4, 3, 5)),
    (Permute((2, 0, 1)), [(5, 4, 3)], (3, 5, 4)),
    (Permute((1, 0)), [(5, 7)], (7, 5)),
    (Permute((1, 0, 2, 3)), [(2, 3, 4, 5)], (3, 2, 4, 5)),
    (Softmax(), [(10,)], (10,)),
    (Softmax(), [(6, 3, 2)], (6, 3, 2)),
    (Softmax(), [(4, 9)], (4, 9)),
]

CONVOLUTIONS: list[tuple[Conv2d, Shape, int]] = [
    (Conv2d((1, 1)), (16, 5, 5), 16),
    (Conv2d((1, 1)), (7, 5, 5), 35),
    (Conv2d((1, 1), activation=HARD_SWISH), (70, 1, 1), 150),
    (Conv2d((1, 1), (2, 2)), (13, 7, 6), 20),
    (Conv2d((1, 1), groups=3), (15, 5, 4), 21),
    (Conv2d((3, 3), (1, 1), (1, 1, 1, 1), activation=RELU), (3, 11, 9), 17),
    (Conv2d((3, 3), (2, 2), (0, 1, 0, 1)), (16, 9, 8), 64),
    (Conv2d((3, 3), (1, 1), (2, 2, 2, 2), (2, 2)), (5, 9, 8), 70),
    (Conv2d((5, 3), (2, 1), (2, 2, 1, 1), (1, 2), activation=SILU), (6, 9, 8), 33),
    (Conv2d((3, 3), (1, 1), (1, 1, 1, 1), groups=2), (10, 6, 6), 14),
    (Conv2d((3, 3), (1, 1), (1, 1, 1, 1), groups=4), (8, 6, 6), 80),
    (Conv2d((3, 3), (1, 1), (1, 1, 1, 1), groups=6), (6, 6, 6), 12),
    (Conv2d((3, 3), (1, 1), (1, 1, 1, 1), groups=37, activation=RELU6), (37, 8, 7), 37),
    (Conv2d((5, 5), (2, 2), (2, 2, 2, 2), groups=64), (64, 9, 9), 64),
    (Conv2d((3, 3), (1, 2), (2, 2, 0, 1), (2, 1), groups=5), (5, 8, 7), 5),
    (Conv2d((7, 7), (7, 7)), (3, 14, 14), 24),
    (Conv2d((3, 3), (3, 3), (1, 1, 1, 1)), (33, 11, 10), 48),
    (Conv2d((3, 3), (1, 1), (1, 1, 1, 1)), (64, 7, 7), 128),
    (Conv2d((3, 3), (1, 1), (1, 1, 1, 1)), (1, 6, 5), 1),
]

LINEARS: list[tuple[Shape, int, int]] = [
    ((40,), 10, 1),
    ((63,), 130, 3),
    ((5, 24), 17, 2),
    ((30, 6), 4, 3),
    ((1,), 1, 17),
]
"""Shape of the input, features, batch."""

CODES = ("int8", "int4", "int3", "int2", "ternary", "binary", "apb:kept=0.04", "xor:bits=0.5")
WAYS = [
    (variant, kernel)
    for text in CODES
    for form in (U8, U4, U2, U1)
    for variant in [replace(Variant.parse(text), activation=form)]
    for kernel in kernels_for(variant)
]
"""Every encoding on every format of codes and every kernel that runs them."""

ZERO_POINTS: dict[str, tuple[float, ...]] = {U8: (0, 77, 255), U4: (0, 6, 15), U2: (0, 1, 3), U1: (0, 0.5, 1)}


def output_shape(op: Conv2d, shape: Shape, channels: int) -> Shape:
    def size(axis: int) -> int:
        extent = op.dilation[axis] * (op.kernel[axis] - 1) + 1
        return (shape[1 + axis] + op.padding[2 * axis] + op.padding[2 * axis + 1] - extent) // op.stride[axis] + 1

    return channels, size(0), size(1)


def single(op: Op, shapes: Sequence[Shape], shape: Shape, probe: bool) -> Network:
    """Inputs and one operation; `probe` has an int8 layer read it, so that it runs in u8 from end to end."""
    names = [f"x{i}" for i in range(len(shapes))]
    operations: list[tuple[str, Op, tuple[str, ...], Shape]] = [
        (name, Input(), (), s) for name, s in zip(names, shapes, strict=True)
    ]
    operations.append(("op", op, tuple(names), shape))
    if not probe:
        return network_of(operations, ["op"])
    if len(shape) == 3:
        operations.append(("probe", Conv2d((1, 1)), ("op",), shape))
    elif len(shape) == 4:  # a layer reads images or rows of features
        flat = (shape[0] * shape[1], *shape[2:])
        operations += [("flat", Reshape(), ("op",), flat), ("probe", Conv2d((1, 1)), ("flat",), flat)]
    else:
        operations.append(("probe", Linear(), ("op",), shape))
    return network_of(operations, ["probe"])


def read_in(op: Op, shapes: Sequence[Shape], shape: Shape, forms: Sequence[str]) -> tuple[Network, dict[str, Variant]]:
    """Inputs and a layer `op` whose value is an output (if read in no format or in f32), and read by a layer in each of
    the formats; with the variants of these readers."""
    names = [f"x{i}" for i in range(len(shapes))]
    operations: list[tuple[str, Op, tuple[str, ...], Shape]] = [
        (name, Input(), (), s) for name, s in zip(names, shapes, strict=True)
    ]
    operations.append(("op", op, tuple(names), shape))
    codes = [form for form in forms if form != F32]
    width = (9, *shape[1:]) if len(shape) == 3 else (*shape[:-1], 9)
    reader: Op = Conv2d((1, 1)) if len(shape) == 3 else Linear()
    operations += [(form, reader, ("op",), width) for form in codes]
    outputs = [*codes, *(["op"] if F32 in forms or not codes else [])]
    return network_of(operations, outputs), {form: Variant("int8", form) for form in codes}


def exact(op: Conv2d) -> Conv2d:
    """The same with an activation that the reference computes to the last bit."""
    return op if op.activation.kind in ("identity", "clamp") else replace(op, activation=RELU6)


def outputs_of(case: Case, inputs: dict[str, Any], isa: str, threads: int = 1) -> dict[str, NDArray[np.float32]]:
    return Runtime.from_bytes(case.artifact, threads, isa)(inputs)


def assert_agree(case: Case, inputs: dict[str, Any], isa: str, tolerance: float, flips: float = 0.0) -> None:
    """max|a - b| <= tolerance * max|b| on every output, but for a share `flips` of elements, where a value half-way
    between two codes went the other way; these differ by little too."""
    expected = case.reference(inputs)
    found = outputs_of(case, inputs, isa)
    for name, wanted in expected.items():
        assert found[name].shape == wanted.shape and found[name].dtype == np.float32
        error = np.abs(found[name] - wanted)
        largest = max(np.abs(wanted).max(), 1e-6)
        bound = tolerance * largest
        assert error.max() <= (0.05 * largest if flips else bound)
        assert (error > bound).mean() <= flips, f"{name}: error {error.max()} above {bound}"


def assert_same_bits(case: Case, inputs: dict[str, Any], isa: str, kernel: str = "") -> None:
    runtime = Runtime.from_bytes(case.artifact, isa=isa)
    if kernel:
        assert dict(zip(runtime.steps, runtime.step_kernels, strict=True))["op"] == kernel
    found, expected = runtime(inputs), case.reference(inputs)
    for name, wanted in expected.items():
        np.testing.assert_array_equal(found[name], wanted.astype(np.float32), f"{case.network.by_name['op']}: {name}")
