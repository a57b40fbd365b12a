"""Exported operations and layers compute what the runtime computes, in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from bitplan.compute import kernels_for
from bitplan.kernels import Runtime
from bitplan.kernels.read_artifact import read_artifact
from bitplan.network import Conv2d, Input, Linear, Network, Op, Shape
from bitplan.onnx_export.model import onnx_model
from bitplan.variant import FLOAT32, Variant

from ..kernels.cases import CONVOLUTIONS, INT8, LINEARS, OPERATIONS, WAYS, ZERO_POINTS, output_shape, single
from ..kernels.networks import Case, make_case, network_of, random_inputs, residual_network

VARIANTS = list(dict.fromkeys(variant for variant, _ in WAYS))


def in_onnx_runtime(
    artifact: bytes, inputs: Mapping[str, NDArray[Any]], four_bits: str = "packed"
) -> dict[str, NDArray[Any]]:
    model, _ = onnx_model(read_artifact(artifact), four_bits)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    given = {name: np.asarray(x, np.float32) for name, x in inputs.items()}
    names = [output.name.removesuffix("_out") for output in session.get_outputs()]
    return dict(zip(names, session.run(None, given), strict=True))


def assert_same(
    case: Case, inputs: Mapping[str, Any], tolerance: float, flips: float, four_bits: str = "packed"
) -> None:
    """All but a share `flips` of the outputs within `tolerance` of the largest: a code half-way between two may fall on the
    other side; those differ by little too."""
    expected = Runtime.from_bytes(case.artifact)(inputs)
    found = in_onnx_runtime(case.artifact, inputs, four_bits)
    assert list(found) == list(expected)
    for name, wanted in expected.items():
        assert found[name].shape == wanted.shape
        error, largest = np.abs(found[name] - wanted), max(float(np.abs(wanted).max()), 1e-6)
        assert error.max() <= (0.05 * largest if flips else tolerance * largest)
        assert (error > tolerance * largest).mean() <= flips


@pytest.mark.parametrize(("op", "shapes", "shape"), OPERATIONS, ids=str)
def test_operations(op: Op, shapes: Sequence[Shape], shape: Shape) -> None:
    rng = np.random.default_rng(0)
    for probe in (False, True):
        network = single(op, shapes, shape, probe)
        inputs = random_inputs(network, 3, rng)
        case = make_case(network, {node.name: INT8 for node in network.layers}, inputs, rng)
        assert_same(case, inputs, 1e-4, 0.02 if probe else 0)


def layer(op: Op, shape: Shape, out: Shape) -> Network:
    return network_of([("x", Input(), (), shape), ("op", op, ("x",), out)], ["op"])


@pytest.mark.parametrize(("op", "shape", "channels"), CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("variant", [FLOAT32, INT8, Variant("int4"), Variant("ternary")], ids=str)
def test_convolutions(op: Conv2d, shape: Shape, channels: int, variant: Variant) -> None:
    rng = np.random.default_rng(1)
    network = layer(op, shape, output_shape(op, shape, channels))
    inputs = random_inputs(network, 2, rng)
    assert_same(make_case(network, {"op": variant}, inputs, rng), inputs, 1e-4, 0)


@pytest.mark.parametrize(("shape", "features", "batch"), LINEARS, ids=str)
@pytest.mark.parametrize("variant", [FLOAT32, INT8, Variant("int4"), Variant("ternary")], ids=str)
def test_linear_layers(shape: Shape, features: int, batch: int, variant: Variant) -> None:
    rng = np.random.default_rng(2)
    network = layer(Linear(), shape, (*shape[:-1], features))
    inputs = random_inputs(network, batch, rng)
    assert_same(make_case(network, {"op": variant}, inputs, rng, planned_batch=batch), inputs, 1e-4, 0)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_every_encoding_and_format(variant: Variant) -> None:
    """With padding, with every kind of zero point, and with a residual."""
    op = Conv2d((3, 3), (1, 1), (1, 1, 1, 1))
    for zero_point in ZERO_POINTS[variant.activation]:
        rng = np.random.default_rng(3)
        network = layer(op, (6, 5, 4), (9, 5, 4))
        inputs = random_inputs(network, 2, rng)
        from bitplan.formats import Range

        held = {"x": {variant.activation: Range(0.11, zero_point)}}
        assert_same(make_case(network, {"op": variant}, inputs, rng, ranges=held), inputs, 1e-4, 0)


@pytest.mark.parametrize("four_bits", ["packed", "int8"])
@pytest.mark.parametrize("variant", [INT8, Variant("int4"), Variant("binary", "u2"), FLOAT32], ids=str)
def test_whole_networks_with_residuals_and_preprocessing(variant: Variant, four_bits: str) -> None:
    rng = np.random.default_rng(4)
    network = residual_network()
    inputs = random_inputs(network, 4, rng, np.uint8)
    grouped = {
        n.name: INT8 if network.weight_shape(n).groups > 1 and variant.activation == "u2" else variant
        for n in network.layers
    }
    case = make_case(network, grouped, inputs, rng)
    assert_same(case, inputs, 1e-3 if variant == FLOAT32 else 0.02, 0.1, four_bits)
    assert kernels_for(variant)
