"""Drop-in modules: the same numbers as the simulation, whatever the layout, the batch and the size of images."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn

from bitplan.errors import DataError, FileFormatError, UsageError
from bitplan.formats import Range
from bitplan.kernels.artifact import pack_artifact
from bitplan.kernels.layer_set import LayerSet
from bitplan.kernels.torch_modules import (
    Conv2d,
    Linear,
    float_weights,
    layer_network,
    operation_of,
    replace_layers,
)
from bitplan.policies.realise.pipeline import quantise
from bitplan.simulate import Simulator, fake_quantise
from bitplan.variant import F32, Variant

CONVOLUTIONS: list[dict[str, Any]] = [
    {"in_channels": 16, "out_channels": 32, "kernel_size": 3, "padding": 1},
    {"in_channels": 17, "out_channels": 9, "kernel_size": (3, 2), "stride": 2, "padding": (0, 1)},
    {"in_channels": 16, "out_channels": 16, "kernel_size": 3, "padding": 1, "groups": 16},
    {"in_channels": 8, "out_channels": 12, "kernel_size": 3, "padding": "same", "dilation": 2, "groups": 2},
    {"in_channels": 6, "out_channels": 5, "kernel_size": (2, 4), "padding": "same", "bias": False},
    {"in_channels": 3, "out_channels": 5, "kernel_size": 1},
]
VARIANTS = ["float32", "int8", "int3", "binary@u2", "int4@u4", "apb@u1:kept=0.01", "ternary"]
RANGES = {"u8": Range(8 / 255, 120), "u4": Range(0.5, 7), "u2": Range(1.5, 1), "u1": Range(2.0, 0.5)}


def seeded(module: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    return module.eval().requires_grad_(False)


def expected(module: nn.Module, variant: Variant, x: torch.Tensor) -> torch.Tensor:
    """What the simulation computes with the same codes."""
    shape = tuple(x.shape[1:]) if x.ndim == 4 else (x.shape[-1],)
    network, weights = layer_network("layer", module, shape), float_weights("layer", module)
    layer = quantise(network, network.layers[0], weights, variant)
    held = None if variant.activation == F32 else RANGES[variant.activation]
    x = x if held is None else fake_quantise(x.clone(), held, variant.activation)
    return Simulator(network, weights).node(network.layers[0], [x], layer, held)


def assert_close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    assert found.shape == wanted.shape
    assert float((found - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_a_convolution_computes_what_the_simulation_computes(options: dict[str, Any], variant: str) -> None:
    if "@" in variant and options.get("groups", 1) > 1:
        pytest.skip("layers with groups read f32 or u8")
    module = seeded(nn.Conv2d(**options))
    chosen = Variant.parse(variant)
    drop_in = Conv2d.from_float(module, chosen, RANGES.get(chosen.activation), (options["in_channels"], 9, 12))
    for size in [(2, 9, 12), (1, 9, 12), (3, 7, 5)]:  # also batches and sizes that nobody planned
        x = torch.randn(size[0], options["in_channels"], *size[1:])
        found = drop_in(x)
        assert_close(found, expected(module, chosen, x))
        assert torch.equal(found, drop_in(x.contiguous(memory_format=torch.channels_last)))
        assert torch.equal(found, drop_in(torch.cat([x, x], 1)[:, : x.shape[1]]))  # neither layout is contiguous
        assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("shape", [(3, 20), (1, 20), (2, 5, 20), (2, 3, 4, 20), (20,), (2, 0, 20)])
def test_a_linear_layer_takes_any_number_of_axes(shape: tuple[int, ...], variant: str) -> None:
    module, chosen = seeded(nn.Linear(20, 7)), Variant.parse(variant)
    x = torch.randn(shape)
    found = Linear.from_float(module, chosen, RANGES.get(chosen.activation), (20,))(x)
    assert found.shape == (*shape[:-1], 7)
    if x.numel():
        assert_close(found.reshape(-1, 7), expected(module, chosen, x.reshape(-1, 20)))


def test_float32_drop_ins_agree_with_torch_for_every_thread_count() -> None:
    module = seeded(nn.Conv2d(16, 40, 3, padding=1))
    x = torch.randn(2, 16, 20, 20)
    found = [Conv2d.from_float(module, "float32", input_shape=(16, 20, 20), threads=n)(x) for n in (1, 2, 5)]
    assert_close(found[0], module(x))
    assert all(torch.equal(found[0], other) for other in found)


def test_many_sizes_in_turn_give_the_same_numbers_as_each_alone() -> None:
    module = seeded(nn.Conv2d(3, 4, 3, padding=1))
    drop_in = Conv2d.from_float(module, "float32", input_shape=(3, 8, 8))
    for size in [*range(3, 20), 3, 8]:  # more than a layer is kept prepared for
        x = torch.randn(1, 3, size, size + 1)
        assert_close(drop_in(x), module(x))


@pytest.mark.parametrize(
    "x, text",
    [
        (torch.zeros(1, 4, 8, 8), r"reads images \[N, 3, H, W\], not a tensor of shape \(1, 4, 8, 8\)"),
        (torch.zeros(3, 8, 8), "reads images"),
        (torch.zeros(1, 3, 1, 1), "too small for the kernel"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.float64), "float32 on the CPU, not torch.float64"),
        (torch.zeros(1, 3, 8, 8, device="meta"), "on meta"),
        (torch.zeros(1, 3, 8, 8, requires_grad=True), "only infers"),
    ],
)
def test_what_does_not_fit_is_refused(x: torch.Tensor, text: str) -> None:
    drop_in = Conv2d.from_float(seeded(nn.Conv2d(3, 4, 3)), "float32", input_shape=(3, 8, 8))
    with pytest.raises(DataError, match=text):
        drop_in(x)


def test_gradients_do_not_matter_where_none_are_asked_for() -> None:
    drop_in = Conv2d.from_float(seeded(nn.Conv2d(3, 4, 3)), "float32", input_shape=(3, 8, 8))
    with torch.no_grad():
        assert not drop_in(torch.zeros(1, 3, 8, 8, requires_grad=True)).requires_grad


@pytest.mark.parametrize(
    "module, variant, held, text",
    [
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), "float32", None, "pads with reflect"),
        (nn.ConvTranspose2d(3, 4, 3), "float32", None, "neither torch.nn.Conv2d nor"),
        (nn.Linear(3, 4), "float32", None, "not"),
        (nn.Conv2d(3, 4, 3), "int8", None, "give the input's range"),
        (nn.Conv2d(3, 4, 3), "int8@f99", None, "is not one of"),
        (nn.Conv2d(4, 4, 3, groups=4), "binary@u2", RANGES["u2"], "has groups"),
        (nn.Conv2d(5, 4, 3), "float32", None, r"it reads \(5, height, width\), not \(3, 8, 8\)"),
    ],
)
def test_what_cannot_be_a_drop_in_is_refused(module: nn.Module, variant: str, held: Range | None, text: str) -> None:
    shape = (4, 8, 8) if "groups" in text else (3, 8, 8)
    with pytest.raises(UsageError, match=text):
        Conv2d.from_float(module, variant, held, shape)


def artifact_of(names: dict[str, nn.Module], shapes: dict[str, tuple[int, ...]]) -> bytes:
    """Float32 layers in one artifact."""
    nodes, weights, layers = [], {}, {}
    from bitplan.network import Network

    for name, module in names.items():
        network = layer_network(name, module, shapes[name])
        nodes += network.nodes
        own = float_weights(name, module)
        weights |= own
        layers[name] = quantise(network, network.layers[0], own, Variant("float32", F32))
    return pack_artifact(Network(tuple(nodes), (nodes[-1].name,)), weights, layers, {})


class Shared(nn.Module):
    """One convolution under two names, called twice, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.again = nn.ModuleList([self.first])
        self.fc = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.again[0](torch.relu(self.first(x)))[:, :, ::2]
        return self.fc(self.first(y).mean((2, 3)))


def shared() -> tuple[Shared, bytes]:
    module = Shared()
    seeded(module)
    return module, artifact_of({"first": module.first, "fc": module.fc}, {"first": (3, 8, 8), "fc": (3,)})


@pytest.mark.parametrize("form", ["path", "text", "bytes", "set"])
def test_replacing_leaves_what_the_module_computes(form: str, tmp_path: Path) -> None:
    module, artifact = shared()
    path = tmp_path / "layers.bitplan"
    path.write_bytes(artifact)
    x = torch.randn(2, 3, 8, 8)
    wanted = module(x)
    given = {"path": path, "text": str(path), "bytes": artifact, "set": LayerSet(artifact)}[form]
    replaced = replace_layers(module, given)
    assert replaced is module
    assert isinstance(module.first, Conv2d) and module.again[0] is module.first
    assert isinstance(module.fc, Linear) and module.fc.layers is module.first.layers
    assert_close(module(x), wanted)
    assert list(module.parameters()) == []


def test_a_replaced_module_can_be_copied_and_pickled() -> None:
    module, artifact = shared()
    replace_layers(module, artifact)
    x = torch.randn(1, 3, 8, 8)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(x), module(x))
        assert other.fc.layers is other.first.layers


def test_another_module_than_the_artifacts_is_refused_and_left_alone() -> None:
    _, artifact = shared()
    other = Shared()
    other.fc = nn.Linear(3, 4)
    with pytest.raises(UsageError, match="layer 'fc' is Linear"):
        replace_layers(other, artifact)
    assert isinstance(other.first, nn.Conv2d)
    with pytest.raises(UsageError, match="no layer 'first'"):
        replace_layers(nn.Sequential(nn.Linear(3, 2)), artifact)


def test_an_artifact_of_a_whole_network_is_no_set_of_layers(tmp_path: Path) -> None:
    from bitplan.profiles.anchor import anchor_artifact

    path = tmp_path / "whole.bitplan"
    path.write_bytes(anchor_artifact())
    with pytest.raises(FileFormatError, match=r"whole.bitplan: .*not a layer with an input of its own"):
        LayerSet.load(path)
    with pytest.raises(UsageError, match="threads is 0"):
        LayerSet(shared()[1], threads=0)
    with pytest.raises(FileFormatError):
        LayerSet(shared()[1][:-1])


def test_calls_from_several_threads_do_not_mix() -> None:
    from concurrent.futures import ThreadPoolExecutor

    module = seeded(nn.Conv2d(8, 8, 3, padding=1))
    drop_in = Conv2d.from_float(module, "int8", RANGES["u8"], (8, 16, 16), threads=2)
    inputs = [torch.randn(1, 8, 8 + i % 5, 16) for i in range(40)]
    wanted = [drop_in(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(drop_in, inputs))
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_numpy_calls_need_no_torch_tensors() -> None:
    _, artifact = shared()
    layers = LayerSet(artifact)
    info = layers.layers["first"]
    assert info.op == operation_of(nn.Conv2d(3, 3, 3, padding=1))
    image = np.zeros((1, 8, 8, 3), np.float32)
    planar = layers.run(info.number, np.ascontiguousarray(image.transpose(0, 3, 1, 2)))
    assert np.array_equal(planar, layers.run(info.number, image, interleaved=True))
    assert layers.weight_bytes > 0


def test_an_empty_batch_gives_an_empty_result_and_inputs_may_be_named() -> None:
    module = seeded(nn.Conv2d(3, 5, 3, padding=1))
    drop_in = Conv2d.from_float(module, "float32", input_shape=(3, 6, 6))
    assert drop_in(torch.zeros(0, 3, 6, 6)).shape == module(torch.zeros(0, 3, 6, 6)).shape
    x = torch.rand(2, 3, 6, 6)
    assert torch.equal(drop_in(input=x), drop_in(x))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_trace_would_record_a_constant_and_is_refused() -> None:
    drop_in = Linear.from_float(seeded(nn.Linear(4, 3)), "float32", input_shape=(4,))
    with pytest.raises(DataError, match="cannot be traced"):
        torch.jit.trace(drop_in, torch.rand(2, 4))


@pytest.mark.parametrize(("variant", "text"), [("apb@u2", "needs the parameter 'kept'"), ("int9", "unknown encoding")])
def test_an_impossible_variant_is_named(variant: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        Linear.from_float(seeded(nn.Linear(4, 3)), variant, RANGES["u2"], (4,))


def test_weights_that_are_not_finite_are_refused() -> None:
    module = seeded(nn.Linear(4, 3))
    module.weight[0, 0] = float("nan")
    with pytest.raises(DataError, match="not finite"):
        Linear.from_float(module, "int8", RANGES["u8"], (4,))
