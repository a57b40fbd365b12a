"""What the Runtime promises its callers: names, shapes, sizes, times, errors, threads and processes."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitplan.compute import SIGN_ENCODINGS, kernels_for, supports_format
from bitplan.encodings import ENCODINGS, encoding_of, every_variant
from bitplan.errors import DataError, UsageError
from bitplan.formats import Range, derive_formats
from bitplan.kernels import Runtime
from bitplan.kernels.arena import plan_arena
from bitplan.kernels.artifact import pack_artifact, stored_policy_hash
from bitplan.kernels.runtime import active_isa, all_isas, encodings, isa_levels, kernel_version
from bitplan.network import Add, Conv2d, Input, Linear, Preprocessing, Reshape, Softmax
from bitplan.variant import F32, FLOAT32, U1, U2, U4, U8, Variant

from .networks import Case, encode, make_case, network_of, random_inputs, random_weights, residual_network

INT8 = Variant("int8")


@pytest.fixture(scope="module")
def case() -> Case:
    rng = np.random.default_rng(0)
    network = residual_network()
    variants = dict.fromkeys((node.name for node in network.layers), INT8)
    variants |= {"join": FLOAT32, "dw": Variant.parse("apb:kept=0.04")}
    return make_case(network, variants, random_inputs(network, 4, rng, np.uint8), rng)


def images(batch: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (batch, 3, 12, 10), np.uint8)


def test_both_lists_of_encodings_agree() -> None:
    assert encodings() == sorted({(encoding.number, encoding.stored_as) for encoding in ENCODINGS})


LOW = tuple(replace(v, activation=U2) for v in every_variant() if v.encoding in (*SIGN_ENCODINGS, "int4"))


@pytest.mark.parametrize(
    ("variant", "kernel"), [(v, kernel) for v in (*every_variant(), *LOW) for kernel in kernels_for(v)], ids=str
)
def test_weight_bytes_are_what_the_encodings_promise(variant: Variant, kernel: str) -> None:
    rng = np.random.default_rng(2)
    network = residual_network()
    inputs = random_inputs(network, 1, rng, np.uint8)
    usual = replace(variant, activation=U8 if variant.activation == U2 else variant.activation)
    variants, kernels, promised = {}, {}, 0
    for node in network.layers:
        shape = network.weight_shape(node)
        variants[node.name] = variant if supports_format(shape, variant.activation) else usual
        kernels[node.name] = kernel if variants[node.name] == variant else kernels_for(usual)[0]
        promised += encoding_of(variant).resident_bytes(shape, variants[node.name], kernels[node.name])
        largest = encoding_of(variant).resident_bytes(shape, variants[node.name])
        assert largest >= encoding_of(variant).resident_bytes(shape, variants[node.name], kernels[node.name])
    case = make_case(network, variants, inputs, rng, kernels=kernels)
    runtime = Runtime.from_bytes(case.artifact)
    assert runtime.weight_bytes == promised
    by_step = dict(zip(runtime.steps, runtime.step_kernels, strict=True))
    assert {name: by_step[name] for name in kernels} == kernels
    assert {by_step[name] for name in by_step.keys() - kernels.keys()} == {""}


def test_kernels_and_layers_that_do_not_go_together_are_refused() -> None:
    network, rng = residual_network(), np.random.default_rng(2)
    inputs = random_inputs(network, 1, rng, np.uint8)
    variants = dict.fromkeys((node.name for node in network.layers), INT8)
    with pytest.raises(UsageError, match="'stem' as int8 cannot run on the kernel 'bits'; name one of bytes, or none"):
        make_case(network, variants, inputs, rng, kernels={"stem": "bits"})
    with pytest.raises(UsageError, match="'dw' has groups and cannot read u4"):
        make_case(network, {**variants, "dw": Variant("int4", U4)}, inputs, rng)


@pytest.mark.parametrize("held", [{}, {U4: Range(1.0, 16)}, {U4: Range(1.0, 0.5)}])
def test_ranges_that_a_format_cannot_have_are_refused(held: dict[str, Range]) -> None:
    network, rng = residual_network(), np.random.default_rng(2)
    variants = {**dict.fromkeys((node.name for node in network.layers), INT8), "logits": Variant("int4", U4)}
    case = make_case(network, variants, random_inputs(network, 1, rng, np.uint8), rng)
    with pytest.raises(UsageError, match=r"value 'mean' .*u4.*calibrate"):
        pack_artifact(network, {}, case.layers, {**case.ranges, "mean": held})


def test_properties(case: Case) -> None:
    network = case.network
    variants = {name: layer.variant for name, layer in case.layers.items()}
    data = pack_artifact(network, {}, case.layers, case.ranges, policy_hash=bytes(range(32)), planned_batch=3)
    runtime = Runtime.from_bytes(data)
    formats = derive_formats(network, variants)
    assert runtime.inputs == {"x": (3, 12, 10)} and runtime.outputs == {"logits": (10,)}
    assert runtime.planned_batch == 3 and runtime.policy_hash == bytes(range(32))
    assert stored_policy_hash(data) == runtime.policy_hash
    assert stored_policy_hash(data[:60] + b"?" + data[61:]) is stored_policy_hash(data[:50]) is None
    assert runtime.arena_bytes == plan_arena(network, formats).size
    preprocessing = runtime.preprocessing
    assert preprocessing == Preprocessing(
        tuple(np.float32(network.preprocessing.mean).tolist()), tuple(np.float32(network.preprocessing.std).tolist())
    )
    assert runtime.steps == ["x", "stem", "dw", "grouped", "join", "mean", "logits"]
    assert formats.kept["dw"] == {F32, U8}  # a layer writes all formats at once


def test_values_without_weights_have_a_step_for_every_further_format() -> None:
    rng = np.random.default_rng(3)
    network = network_of(
        [
            ("x", Input(), (), (40,)),
            ("sum", Add(), ("x", "x"), (40,)),
            *((f"y{number}", Linear(), ("sum",), (9,)) for number in range(4)),
        ],
        [f"y{number}" for number in range(4)],
    )
    inputs = random_inputs(network, 2, rng)
    variants = {f"y{number}": Variant("int4", form) for number, form in enumerate((U1, U2, U4, U8))}
    case = make_case(network, variants, inputs, rng)
    runtime = Runtime.from_bytes(case.artifact)
    assert runtime.steps == ["x", "sum", "sum:u8", "sum:u4", "sum:u2", "sum:u1", "y0", "y1", "y2", "y3"]
    assert runtime.arena_bytes == plan_arena(network, derive_formats(network, variants)).size
    found, expected = runtime(inputs), case.reference(inputs)
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name])


def test_a_value_read_in_f32_and_u8_is_converted_in_a_step_of_its_own() -> None:
    rng = np.random.default_rng(3)
    network = network_of(
        [
            ("x", Input(), (), (4, 5, 5)),
            ("a", Conv2d((1, 1)), ("x",), (6, 5, 5)),
            ("b", Conv2d((1, 1)), ("x",), (6, 5, 5)),
            ("sum", Add(), ("a", "b"), (6, 5, 5)),
        ],
        ["sum", "a"],
    )
    inputs = random_inputs(network, 2, rng)
    case = make_case(network, {"a": INT8, "b": FLOAT32}, inputs, rng)
    runtime = Runtime.from_bytes(case.artifact)
    assert runtime.steps == ["x", "x:u8", "a", "b", "sum"]
    found, expected = runtime(inputs), case.reference(inputs)
    assert list(found) == ["sum", "a"]
    with pytest.raises(DataError, match=r"outputs \['sum', 'a'\]; pass a mapping"):
        runtime(inputs["x"])
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-4)


def test_several_inputs_by_name_or_in_order() -> None:
    rng = np.random.default_rng(4)
    network = network_of(
        [
            ("a", Input(), (), (6,)),
            ("b", Input(), (), (6,)),
            ("w", Linear(), ("a",), (6,)),
            ("y", Add(), ("w", "b"), (6,)),
        ],
        ["y"],
    )
    inputs = random_inputs(network, 2, rng)
    case = make_case(network, {"w": FLOAT32}, inputs, rng)
    runtime = Runtime.from_bytes(case.artifact)
    by_name = runtime({"b": inputs["b"], "a": inputs["a"]})
    in_order = runtime([inputs["a"], inputs["b"]])
    np.testing.assert_array_equal(by_name["y"], in_order)
    with pytest.raises(DataError, match=r"arrays for \['a', 'c'\] were given; the network's inputs are \['a', 'b'\]"):
        runtime({"a": inputs["a"], "c": inputs["b"]})
    with pytest.raises(DataError, match="1 arrays were given; the network has 2 inputs"):
        runtime(inputs["a"])
    with pytest.raises(DataError, match="input 'b' holds 1 images, input 'a' 2"):
        runtime([inputs["a"], inputs["b"][:1]])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (images(1)[0], r"input 'x' has shape \(3, 12, 10\); expected a batch of \(3, 12, 10\)"),
        (images(1)[:, :, :, :9], r"shape \(1, 3, 12, 9\)"),
        (images(1).transpose(0, 2, 3, 1), r"shape \(1, 12, 10, 3\)"),
        (images(1).astype(np.float64), "of type float64; expected uint8 or float32"),
        (images(1).astype(np.int8), "of type int8"),
        (images(1).astype(object), "of type object"),
        (images(1)[:0], "a batch of 0 images; this artifact was planned for 1 to 4"),
        (images(5), "a batch of 5 images; this artifact was planned for 1 to 4"),
        (images(1).tolist(), "is a list; expected a numpy array"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(array: Any, message: str, case: Case) -> None:
    with pytest.raises(DataError, match=message):
        Runtime.from_bytes(case.artifact)(array)


def test_strided_arrays_are_copied(case: Case) -> None:
    runtime = Runtime.from_bytes(case.artifact)
    wide = images(4)
    np.testing.assert_array_equal(runtime(wide[::2]), runtime(wide[::2].copy()))


def test_floats_on_the_raw_scale_mean_the_same(case: Case) -> None:
    runtime = Runtime.from_bytes(case.artifact)
    np.testing.assert_array_equal(runtime(images(2)), runtime(images(2).astype(np.float32)))


def test_nan_flows_through_float_layers() -> None:
    rng = np.random.default_rng(5)
    network = network_of(
        [("x", Input(), (), (8,)), ("y", Linear(), ("x",), (5,)), ("p", Softmax(), ("y",), (5,))], ["p"]
    )
    inputs = random_inputs(network, 2, rng)
    case = make_case(network, {"y": FLOAT32}, inputs, rng)
    x = np.asarray(inputs["x"], np.float32)
    x[0, 3] = np.nan
    result = Runtime.from_bytes(case.artifact)(x)
    assert np.isnan(result[0]).all()
    assert np.isfinite(result[1]).all()


def test_nan_in_u8_layers_does_no_harm(case: Case) -> None:
    x = images(1).astype(np.float32)
    x[0, 1, 3] = np.nan
    x[0, 0, 0] = np.inf
    Runtime.from_bytes(case.artifact)(x)


def test_times(case: Case) -> None:
    runtime = Runtime.from_bytes(case.artifact)
    steps = runtime.time_steps(images(2), 7)
    runs = runtime.time_runs(images(2), 5)
    assert steps.shape == (7, len(runtime.steps)) and runs.shape == (5,)
    assert steps.dtype == runs.dtype == np.float64
    assert (steps >= 0).all() and (runs > 0).all()
    assert 0.2 < np.median(steps.sum(1)) / np.median(runs) < 5
    assert runtime.time_runs(images(1), 0).shape == (0,)


def test_levels_and_version() -> None:
    assert set(isa_levels()) <= set(all_isas())
    assert isa_levels()[-1] == all_isas()[-1] == "portable"
    assert isinstance(kernel_version, str) and kernel_version


def test_unknown_level_is_refused(case: Case) -> None:
    with pytest.raises(UsageError, match=r"unknown ISA level 'sse9'; known are .*portable"):
        Runtime.from_bytes(case.artifact, isa="sse9")


@pytest.mark.parametrize("threads", [0, -1, 257])
def test_impossible_numbers_of_threads_are_refused(threads: int, case: Case) -> None:
    with pytest.raises(UsageError, match="from 1 to 256"):
        Runtime.from_bytes(case.artifact, threads=threads)
    runtime = Runtime.from_bytes(case.artifact)
    with pytest.raises(UsageError, match="from 1 to 256"):
        runtime.threads = threads
    assert runtime.threads == 1


def test_threads_can_be_changed_between_calls(case: Case) -> None:
    runtime = Runtime.from_bytes(case.artifact)
    expected = runtime(images(4))
    for threads in (2, 4, 1, 3):
        runtime.threads = threads
        assert runtime.threads == threads
        for _ in range(20):
            np.testing.assert_array_equal(runtime(images(4)), expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_concurrent_calls_of_one_runtime(threads: int, case: Case) -> None:
    runtime = Runtime.from_bytes(case.artifact, threads=threads)
    batches = [images(1 + seed % 4, seed) for seed in range(12)]
    expected = [runtime(batch) for batch in batches]

    def call(i: int) -> None:
        np.testing.assert_array_equal(runtime(batches[i % 12]), expected[i % 12])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(call, range(300)))


def test_threads_may_change_while_calls_run(case: Case) -> None:
    runtime = Runtime.from_bytes(case.artifact)
    expected = runtime(images(4))

    def call(i: int) -> None:
        if i % 10 == 0:
            runtime.threads = 1 + i // 10 % 3
        np.testing.assert_array_equal(runtime(images(4)), expected)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(call, range(120)))


def test_several_runtimes_live_side_by_side(case: Case) -> None:
    expected = Runtime.from_bytes(case.artifact)(images(3))
    runtimes = [Runtime.from_bytes(case.artifact, 1 + i % 2, isa) for isa in isa_levels() for i in range(4)]
    for runtime in reversed(runtimes):
        np.testing.assert_allclose(runtime(images(3)), expected, atol=1e-3)


def in_new_process(code: str, artifact: bytes, folder: Path, **environment: str) -> str:
    path = folder / "a.bitplan"
    path.write_bytes(artifact)
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(path)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return result.stdout + result.stderr


FORK = """
import os, sys
import numpy as np
from bitplan.kernels import Runtime
runtime = Runtime.load(sys.argv[1], threads=2)
x = np.zeros((4, 3, 12, 10), np.uint8)
before = runtime(x)
child = os.fork()
if child == 0:
    same = all(np.array_equal(runtime(x), before) for _ in range(50))
    runtime.threads = 3
    sys.exit(0 if same and np.array_equal(runtime(x), before) else 1)  # drops the runtime as any process does
print(os.waitpid(child, 0)[1], np.array_equal(runtime(x), before))
"""


def test_a_runtime_with_threads_survives_a_fork(case: Case, tmp_path: Path) -> None:
    assert in_new_process(FORK, case.artifact, tmp_path) == "0 True\n"


@pytest.mark.parametrize("isa", isa_levels())
def test_environment_forces_a_level(isa: str, case: Case, tmp_path: Path) -> None:
    code = "import sys; from bitplan.kernels import Runtime; print(Runtime.load(sys.argv[1]).isa)"
    assert in_new_process(code, case.artifact, tmp_path, BITPLAN_ISA=isa) == f"{isa}\n"
    assert active_isa() in isa_levels()


def test_environment_with_an_unknown_level_is_refused(case: Case, tmp_path: Path) -> None:
    code = "import sys; from bitplan.kernels import Runtime; Runtime.load(sys.argv[1])"
    output = in_new_process(code, case.artifact, tmp_path, BITPLAN_ISA="sse9")
    assert "UsageError" in output and "BITPLAN_ISA=sse9" in output


def test_writing_artifacts_needs_neither_torch_nor_the_compiled_module(case: Case, tmp_path: Path) -> None:
    code = """
import sys
import bitplan.kernels, bitplan.kernels.artifact
print([name for name in ("torch", "bitplan.kernels._runtime") if name in sys.modules])
try:
    bitplan.kernels.Runtim
except AttributeError as error:
    print(error)
"""
    output = in_new_process(code, case.artifact, tmp_path)
    assert output == "[]\nmodule 'bitplan.kernels' has no attribute 'Runtim'\n"


def test_a_runtime_keeps_nothing_of_the_file(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "a.bitplan"
    path.write_bytes(case.artifact)
    runtime = Runtime.load(path)
    expected = Runtime.from_bytes(case.artifact)(images(1))
    path.write_bytes(b"")
    np.testing.assert_array_equal(runtime(images(1)), expected)


def test_unused_reshape_of_features_is_exact() -> None:
    rng = np.random.default_rng(6)
    network = network_of([("x", Input(), (), (2, 3, 4)), ("flat", Reshape(), ("x",), (24,))], ["flat"])
    x = random_inputs(network, 1, rng)
    weights = random_weights(network, rng)
    data = pack_artifact(network, weights, encode(network, weights, {}), {})
    np.testing.assert_array_equal(Runtime.from_bytes(data)(x)["flat"], x["x"].reshape(1, 24))
