"""The runtime computes what the reference computes: every operation, format, encoding and ISA level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bitplan.compute import kernels_for, supports_format
from bitplan.encodings import default_menu, encoding_of
from bitplan.formats import Range, derive_formats
from bitplan.kernels import Runtime
from bitplan.kernels.runtime import isa_levels
from bitplan.network import (
    RELU,
    RELU6,
    SAME_RANGE,
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
    Preprocessing,
    Reshape,
    ScaleShift,
    Shape,
    Slice,
    Softmax,
)
from bitplan.variant import F32, FLOAT32, U1, U2, U4, U8, Variant

from .networks import Case, make_case, network_of, random_inputs, residual_network

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

CODES = ("int8", "int4", "int3", "int2", "ternary", "binary", "apb:kept=0.04")
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


@pytest.mark.parametrize("isa", isa_levels())
@pytest.mark.parametrize(("op", "shapes", "shape"), OPERATIONS, ids=str)
@pytest.mark.parametrize("form", ["f32", "u8"])
def test_operations_without_weights(op: Op, shapes: list[Shape], shape: Shape, form: str, isa: str) -> None:
    rng = np.random.default_rng(5)
    network = single(op, shapes, shape, probe=form == "u8")
    variants = {node.name: INT8 for node in network.layers}
    reads = derive_formats(network, variants).read["op"]
    assert reads == ("f32" if isinstance(op, Softmax) else form)
    for batch in (1, 3):
        inputs = random_inputs(network, batch, rng)
        case = make_case(network, variants, inputs, rng)
        assert_agree(case, inputs, isa, 1e-5, flips=0.03 if form == "u8" else 0.0)


@pytest.mark.parametrize("isa", isa_levels())
@pytest.mark.parametrize("op", [op for op in OPERATIONS if isinstance(op[0], (*SAME_RANGE, Concat))], ids=str)
def test_u8_values_move_between_ranges(op: tuple[Op, list[Shape], Shape], isa: str) -> None:
    """An artifact may give such operations a range of their own; then codes are converted on the way."""
    rng = np.random.default_rng(6)
    network = single(*op, probe=True)
    inputs = random_inputs(network, 2, rng)
    variants = {node.name: INT8 for node in network.layers}
    case = make_case(
        network, variants, inputs, rng, ranges={"op": {U8: Range(0.03125, 100)}, "x0": {U8: Range(0.0625, 90)}}
    )
    assert_agree(case, inputs, isa, 1e-5, flips=0.03)


@pytest.mark.parametrize("isa", isa_levels())
@pytest.mark.parametrize("variant", default_menu(), ids=str)
@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
def test_convolutions(variant: Variant, residual: bool, isa: str) -> None:
    rng = np.random.default_rng(7)
    for op, shape, channels in CONVOLUTIONS:
        out = output_shape(op, shape, channels)
        shapes = [shape, out] if residual else [shape]
        network = single(op, shapes, out, probe=False)
        inputs = random_inputs(network, 2, rng)
        case = make_case(network, {"op": variant}, inputs, rng)
        assert_agree(case, inputs, isa, encoding_of(variant).tolerance)


@pytest.mark.parametrize("isa", isa_levels())
@pytest.mark.parametrize("variant", default_menu(), ids=str)
def test_linear_layers(variant: Variant, isa: str) -> None:
    rng = np.random.default_rng(8)
    for shape, features, batch in LINEARS:
        out = (*shape[:-1], features)
        network = single(Linear(RELU), [shape, out], out, probe=False)
        inputs = random_inputs(network, batch, rng)
        case = make_case(network, {"op": variant}, inputs, rng, planned_batch=batch)
        assert_agree(case, inputs, isa, encoding_of(variant).tolerance)


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


def assert_same_bits(case: Case, inputs: dict[str, Any], isa: str, kernel: str = "") -> None:
    runtime = Runtime.from_bytes(case.artifact, isa=isa)
    if kernel:
        assert dict(zip(runtime.steps, runtime.step_kernels, strict=True))["op"] == kernel
    found, expected = runtime(inputs), case.reference(inputs)
    for name, wanted in expected.items():
        np.testing.assert_array_equal(found[name], wanted.astype(np.float32), f"{case.network.by_name['op']}: {name}")


@pytest.mark.parametrize("isa", isa_levels())
@pytest.mark.parametrize(("variant", "kernel"), WAYS, ids=str)
def test_convolutions_on_codes_to_the_last_bit(variant: Variant, kernel: str, isa: str) -> None:
    rng = np.random.default_rng(12)
    for number, (op, shape, channels) in enumerate(CONVOLUTIONS):
        if op.groups > 1 and variant.activation != U8:
            continue
        out = output_shape(op, shape, channels)
        network, readers = read_in(exact(op), [shape, out] if number % 2 else [shape], out, [F32])
        inputs = random_inputs(network, 1 + number % 3, rng)
        case = make_case(network, {"op": variant, **readers}, inputs, rng, kernels={"op": kernel})
        assert_same_bits(case, inputs, isa, kernel)


@pytest.mark.parametrize("isa", isa_levels())
@pytest.mark.parametrize(("variant", "kernel"), WAYS, ids=str)
def test_linear_layers_on_codes_to_the_last_bit(variant: Variant, kernel: str, isa: str) -> None:
    rng = np.random.default_rng(13)
    for shape, features, batch in LINEARS:
        out = (*shape[:-1], features)
        network, readers = read_in(Linear(RELU), [shape, out], out, [F32])
        inputs = random_inputs(network, batch, rng)
        case = make_case(network, {"op": variant, **readers}, inputs, rng, planned_batch=17, kernels={"op": kernel})
        assert_same_bits(case, inputs, isa, kernel)
        for name, array in random_inputs(network, 17, rng).items():
            inputs[name] = array
        assert_same_bits(case, inputs, isa, kernel)


@pytest.mark.parametrize("isa", isa_levels())
@pytest.mark.parametrize(("variant", "kernel"), [way for way in WAYS if way[0].encoding in ("int8", "apb")], ids=str)
def test_every_zero_point_and_its_padding(variant: Variant, kernel: str, isa: str) -> None:
    """Codes that pad: 0, one in the middle, the largest; and in u1 the lower of two levels that are not zero."""
    rng = np.random.default_rng(14)
    op = Conv2d((3, 3), (1, 1), (2, 1, 1, 2))
    network, readers = read_in(op, [(37, 5, 4)], (21, 6, 5), [F32])
    inputs = random_inputs(network, 2, rng)
    for zero_point in ZERO_POINTS[variant.activation]:
        held = {"x0": {variant.activation: Range(0.03125 if variant.activation == U8 else 0.75, zero_point)}}
        case = make_case(network, {"op": variant, **readers}, inputs, rng, ranges=held, kernels={"op": kernel})
        assert_same_bits(case, inputs, isa)


@pytest.mark.parametrize("isa", isa_levels())
@pytest.mark.parametrize(
    "forms", [[U8], [U4], [U2], [U1], [F32, U2], [U8, U1], [U4, U2], [F32, U8, U4, U2, U1]], ids=str
)
def test_layers_write_all_formats_that_are_read(forms: list[str], isa: str) -> None:
    """Whatever the layer is: grouped and depthwise ones too, whose channels share words of planes."""
    rng = np.random.default_rng(9)
    variants = [INT8, Variant.parse("apb:kept=0.04"), Variant("binary", U2), Variant("ternary", U1)]
    for op, shape, channels in CONVOLUTIONS:
        out = output_shape(op, shape, channels)
        for variant in variants if op.groups == 1 else variants[:2]:
            network, readers = read_in(exact(op), [shape, out], out, forms)
            inputs = random_inputs(network, 2, rng)
            case = make_case(network, {"op": variant, **readers}, inputs, rng)
            assert derive_formats(network, {"op": variant, **readers}).kept["op"] == set(forms)
            assert_same_bits(case, inputs, isa)


@pytest.mark.parametrize("isa", isa_levels())
@pytest.mark.parametrize("forms", [[U1], [F32, U8, U4, U2, U1]], ids=str)
def test_float_and_linear_layers_write_all_formats(forms: list[str], isa: str) -> None:
    """Sums of floats are rounded in some order: a value at the border of two codes may go the other way."""
    rng = np.random.default_rng(15)
    cases: list[tuple[Op, Shape, Shape]] = [
        (exact(op), shape, output_shape(op, shape, channels)) for op, shape, channels in CONVOLUTIONS
    ]
    cases += [(Linear(RELU), shape, (*shape[:-1], features)) for shape, features, _ in LINEARS]
    for op, shape, out in cases:
        network, readers = read_in(op, [shape, out], out, forms)
        inputs = random_inputs(network, 3, rng)
        case = make_case(network, {"op": FLOAT32, **readers}, inputs, rng)
        found, expected = outputs_of(case, inputs, isa), case.reference(inputs)
        for name, wanted in expected.items():
            error = np.abs(found[name] - wanted)
            assert (error > 1e-4 * np.abs(wanted).max()).mean() <= 0.005, (op, name)


@pytest.mark.parametrize("isa", isa_levels())
@pytest.mark.parametrize("form", [U4, U2, U1])
def test_values_without_weights_are_converted_to_planes(form: str, isa: str) -> None:
    rng = np.random.default_rng(16)
    for shape in ((1, 3, 2), (31, 4, 3), (32, 1, 1), (70, 5, 4), (33,), (5, 70)):
        image = len(shape) == 3
        layer: Op = Conv2d((1, 1)) if image else Linear()
        out = (8, *shape[1:]) if image else (*shape[:-1], 8)
        network = network_of(
            [("x", Input(), (), shape), ("op", Add(RELU), ("x", "x"), shape), ("y", layer, ("op",), out)], ["y"]
        )
        inputs = random_inputs(network, 2, rng)
        inputs["x"].reshape(-1)[:1] = 0.0  # at the threshold of u1 where zero is a level
        case = make_case(network, {"y": Variant("int4", form)}, inputs, rng)
        assert_same_bits(case, inputs, isa)


@pytest.mark.parametrize("isa", isa_levels())
@pytest.mark.parametrize(
    "variant",
    [
        *(Variant("int4"), Variant("int3"), Variant.parse("apb:kept=0.02"), FLOAT32, INT8),
        *map(Variant.parse, ("binary@u2", "ternary@u1", "apb@u4:kept=0.02", "int4@u4")),
    ],
    ids=str,
)
def test_layers_too_large_to_be_decoded_at_once(variant: Variant, isa: str) -> None:
    """Above 1 MB of levels, and rows beyond what is packed at once, panels become the outer loop."""
    rng = np.random.default_rng(10)
    op, shape = Conv2d((3, 3), (1, 1), (1, 1, 1, 1)), (350, 20, 20)
    network = single(op, [shape], (351, 20, 20), probe=False)
    inputs = random_inputs(network, 4, rng)
    for kernel in kernels_for(variant):
        case = make_case(network, {"op": variant}, inputs, rng, kernels={"op": kernel})
        assert_agree(case, inputs, isa, encoding_of(variant).tolerance)


@pytest.mark.parametrize("isa", isa_levels())
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("variant", [FLOAT32, INT8], ids=str)
@pytest.mark.parametrize("channels", [1, 3, 20])
def test_preprocessing(variant: Variant, dtype: type[np.generic], isa: str, channels: int) -> None:
    rng = np.random.default_rng(11)
    mean, std = tuple(rng.uniform(90, 130, channels).tolist()), tuple(rng.uniform(50, 70, channels).tolist())
    network = network_of(
        [("x", Input(), (), (channels, 9, 7)), ("y", Conv2d((1, 1)), ("x",), (8, 9, 7))],
        ["y"],
        Preprocessing(mean, std),
    )
    inputs = random_inputs(network, 2, rng, np.uint8)
    inputs["x"] = inputs["x"].astype(dtype)
    case = make_case(network, {"y": variant}, inputs, rng)
    assert_agree(case, inputs, isa, 1e-5, flips=0.02)


MIXED = tuple(
    map(Variant.parse, ("float32", "int8", "int3", "apb:kept=0.04", "binary@u2", "ternary@u1", "apb@u4:kept=0.04"))
)


def mixed(
    network: Network, rng: np.random.Generator, offered: Sequence[Variant] = MIXED
) -> tuple[dict[str, Variant], dict[str, str]]:
    """A variant and a kernel for every layer, drawn at random."""
    variants, kernels = {}, {}
    for node in network.layers:
        fitting = [v for v in offered if supports_format(network.weight_shape(node), v.activation)]
        variants[node.name] = fitting[rng.integers(len(fitting))]
        names = kernels_for(variants[node.name])
        kernels[node.name] = names[rng.integers(len(names))]
    return variants, kernels


@pytest.mark.parametrize("isa", isa_levels())
@pytest.mark.parametrize("seed", range(12))
def test_whole_networks_of_mixed_variants(seed: int, isa: str) -> None:
    rng = np.random.default_rng(seed)
    network = residual_network()
    inputs = random_inputs(network, 3, rng, np.uint8)
    variants, _ = mixed(network, rng, default_menu())
    case = make_case(network, variants, inputs, rng)
    expected, found = case.reference(inputs)["logits"], outputs_of(case, inputs, isa)["logits"]
    # A code that went the other way early on moves every logit a little.
    assert np.abs(found - expected).max() <= 0.02 * np.abs(expected).max()
    assert np.abs(found - expected).mean() <= 0.003 * np.abs(expected).max()


@pytest.mark.parametrize("isa", isa_levels())
@pytest.mark.parametrize("seed", range(12))
def test_whole_networks_of_mixed_formats_and_kernels(seed: int, isa: str) -> None:
    """Codes alone, so that nothing but the mean is rounded otherwise than in the reference."""
    rng = np.random.default_rng(100 + seed)
    network = residual_network()
    inputs = random_inputs(network, 3, rng, np.uint8)
    variants, kernels = mixed(network, rng, [v for v in MIXED if v != FLOAT32])
    case = make_case(network, variants, inputs, rng, kernels=kernels)
    expected, found = case.reference(inputs)["logits"], outputs_of(case, inputs, isa)["logits"]
    assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("isa", isa_levels())
def test_results_do_not_depend_on_threads_or_batch(isa: str) -> None:
    rng = np.random.default_rng(21)
    network = residual_network()
    for _ in range(8):
        inputs = random_inputs(network, 4, rng, np.uint8)
        variants, kernels = mixed(network, rng)
        case = make_case(network, variants, inputs, rng, kernels=kernels)
        expected = outputs_of(case, inputs, isa)["logits"]
        for threads in (2, 3, 5):
            np.testing.assert_array_equal(outputs_of(case, inputs, isa, threads)["logits"], expected)
        runtime = Runtime.from_bytes(case.artifact, isa=isa)
        for image in range(4):
            np.testing.assert_array_equal(runtime(inputs["x"][image : image + 1]), expected[image : image + 1])


def test_networks_of_codes_give_the_same_bits_at_every_level() -> None:
    rng = np.random.default_rng(22)
    network = residual_network()
    for _ in range(8):
        inputs = random_inputs(network, 2, rng, np.uint8)
        variants, kernels = mixed(network, rng, [v for v in MIXED if v != FLOAT32])
        case = make_case(network, variants, inputs, rng, kernels=kernels)
        first, *others = (outputs_of(case, inputs, isa)["logits"] for isa in isa_levels())
        for other in others:
            np.testing.assert_array_equal(other, first)


def test_forced_level_is_the_one_that_runs() -> None:
    rng = np.random.default_rng(1)
    network = residual_network()
    variants, kernels = mixed(network, rng)
    case = make_case(network, variants, random_inputs(network, 1, rng, np.uint8), rng, kernels=kernels)
    for isa in isa_levels():
        assert Runtime.from_bytes(case.artifact, isa=isa).isa == isa
