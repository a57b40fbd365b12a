"""The runtime computes what the reference computes: every operation and layer, format, encoding and ISA level."""

from __future__ import annotations

import numpy as np
import pytest

from bitplan.compute import kernels_for
from bitplan.encodings import encoding_of, every_variant
from bitplan.formats import Range, derive_formats
from bitplan.kernels.runtime import isa_levels
from bitplan.network import (
    RELU,
    SAME_RANGE,
    Add,
    Concat,
    Conv2d,
    Input,
    Linear,
    Op,
    Preprocessing,
    Shape,
    Softmax,
)
from bitplan.variant import F32, FLOAT32, U1, U2, U4, U8, Variant

from .cases import (
    CONVOLUTIONS,
    INT8,
    LINEARS,
    OPERATIONS,
    WAYS,
    ZERO_POINTS,
    assert_agree,
    assert_same_bits,
    exact,
    output_shape,
    outputs_of,
    read_in,
    single,
)
from .networks import make_case, network_of, random_inputs


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
@pytest.mark.parametrize("variant", every_variant(), ids=str)
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
@pytest.mark.parametrize("variant", every_variant(), ids=str)
def test_linear_layers(variant: Variant, isa: str) -> None:
    rng = np.random.default_rng(8)
    for shape, features, batch in LINEARS:
        out = (*shape[:-1], features)
        network = single(Linear(RELU), [shape, out], out, probe=False)
        inputs = random_inputs(network, batch, rng)
        case = make_case(network, {"op": variant}, inputs, rng, planned_batch=batch)
        assert_agree(case, inputs, isa, encoding_of(variant).tolerance)


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
