"""The peers' models compute what they should; skipped where the peers are not installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from harness.cases import Candidate, Case
from harness.check import relative_error
from harness.run import Pool, run_case
from harness.timing import Effort
from harness.workloads import ColdLinear, ConvChain

from bitplan.network import RELU, RELU6, Conv2d, Input, Linear, MaxPool, Mean, Network, Node, Pad, Slice
from bitplan.simulate import Simulator

EFFORT = Effort(rounds=1, seconds=0.0)


@pytest.mark.parametrize("level", ["native", "avx2"])
@pytest.mark.parametrize(
    ("engine", "variant"),
    [("onnxruntime", "int8"), ("onnxruntime", "int8:unsigned"), ("onnxruntime", "float32"), ("openvino", "int8")],
)
def test_convolutions(engine: str, variant: str, level: str, tmp_path: Path) -> None:
    pytest.importorskip(engine, reason="pip install 'bitplan[bench]'")
    pytest.importorskip("capstone", reason="pip install 'bitplan[bench]'")
    if level != "native" and engine == "openvino":
        pytest.skip("copying and patching its libraries takes long; the benchmark itself checks this")
    one = Case("", "", ConvChain(32, 7, 3), (Candidate(engine, level, variant),), ConvChain(32, 7, 1), 2)
    with Pool(tmp_path) as pool:
        (record,) = run_case(one, pool, EFFORT, print)
    assert record["runs"] > 0
    assert ("cpuid_answered_at_capped_level" in record["about"]) == (level != "native")


@pytest.mark.parametrize("variant", ["int8", "int8:matmulinteger", "int4"])
def test_linear_layers(variant: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="pip install 'bitplan[bench]'")
    one = Case("", "", ColdLinear(256, 3), (Candidate("onnxruntime", "native", variant),))
    with Pool(tmp_path) as pool:
        assert run_case(one, pool, EFFORT, print)


def test_networks_as_onnx_equal_the_captured_ones() -> None:
    pytest.importorskip("onnx", reason="pip install 'bitplan[bench]'")
    from harness.network_models import to_onnx
    from harness.reference import expected

    nodes = (
        Node("x", Input(), (), (3, 12, 10)),
        Node("stem", Conv2d((3, 3), (2, 2), (1, 0, 1, 1), activation=RELU), ("x",), (8, 5, 5)),
        Node("dw", Conv2d((3, 3), (1, 1), (1, 1, 1, 1), groups=8, activation=RELU6), ("stem",), (8, 5, 5)),
        Node("join", Conv2d((1, 1), activation=RELU), ("dw", "stem"), (8, 5, 5)),
        Node("pool", MaxPool((3, 3), (2, 2), (1, 1, 1, 1)), ("join",), (8, 3, 3)),
        Node("slice", Slice(((0, 8, 1), (0, 3, 2), (0, 3, 2))), ("pool",), (8, 2, 2)),
        Node("pad", Pad((0, 1, 1, 0), (2, 1), 0.5), ("slice",), (11, 3, 3)),
        Node("mean", Mean(), ("pad",), (11,)),
        Node("fc", Linear(), ("mean",), (5,)),
    )
    network = Network(nodes, ("fc",))
    rng = np.random.default_rng(0)
    weights = {}
    for node in network.layers:
        shape = network.weight_shape(node)
        size = (shape.out_channels, shape.in_channels // shape.groups, *shape.kernel)
        weight = rng.standard_normal(size, np.float32)
        weights[f"{node.name}.weight"] = weight[:, :, 0, 0] if isinstance(node.op, Linear) else weight
        weights[f"{node.name}.bias"] = rng.standard_normal(shape.out_channels, np.float32)
    x = rng.standard_normal((1, 3, 12, 10), np.float32)
    wanted = Simulator(network, weights).outputs(x)["fc"].numpy()
    assert relative_error(expected(to_onnx(network, weights), x), wanted) < 1e-5
