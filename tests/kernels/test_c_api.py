"""The C interface (bitplan.h): it computes what Runtime computes, and whatever it is given, it answers with a status."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bitplan.kernels import Runtime
from bitplan.network import Add, Conv2d, Input, Linear, Mean, Preprocessing
from bitplan.variant import Variant

from .c_library import ROOT, InputArray, Options, OutputArray, install, open_library, run, tool
from .networks import make_case, network_of, random_inputs

OK, ARGUMENT, OPTION, SYSTEM, FORMAT, INPUT = range(6)
U8, F32 = 1, 2
HEADER = ROOT / "kernels" / "include" / "bitplan.h"
LANGUAGES = [("gcc", "c99"), ("gcc", "c17"), ("g++", "c++11"), ("g++", "c++20")]


@pytest.mark.parametrize(("compiler", "standard"), LANGUAGES)
def test_the_header_is_clean(tmp_path: Path, compiler: str, standard: str) -> None:
    source = tmp_path / ("user.c" if compiler == "gcc" else "user.cpp")
    functions = re.findall(r"\b(bitplan_\w+)\(", re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL))
    uses = "".join(f"  (void)&{name};\n" for name in sorted(set(functions)))
    options = "const bitplan_options options = BITPLAN_OPTIONS_INIT;"
    source.write_text(
        f"#include <bitplan.h>\nint main(void) {{\n{uses}  {options}\n  return (int)options.threads;\n}}\n"
    )
    warnings = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion", "-Wshadow"]
    run(tool(compiler), f"-std={standard}", *warnings, f"-I{HEADER.parent}", "-fsyntax-only", source)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return open_library(install(tmp_path_factory.mktemp("prefix"), shared=True).find("libbitplan.so"))


@pytest.fixture(scope="module")
def artifact() -> bytes:
    """A network with two inputs and two outputs, for up to 3 images."""
    rng = np.random.default_rng(0)
    network = network_of(
        [
            ("image", Input(), (), (3, 6, 5)),
            ("features", Input(), (), (8,)),
            ("conv", Conv2d((3, 3), (1, 1), (1, 1, 1, 1)), ("image",), (8, 6, 5)),
            ("mean", Mean(), ("conv",), (8,)),
            ("sum", Add(), ("mean", "features"), (8,)),
            ("logits", Linear(), ("sum",), (4,)),
        ],
        ["logits", "conv"],
        Preprocessing((120.0, 115.0, 105.0), (58.0, 57.0, 57.5), 8, 6),
    )
    variants = {"conv": Variant("int8"), "logits": Variant.parse("apb:kept=0.04")}
    return make_case(network, variants, random_inputs(network, 3, rng), rng, planned_batch=3).artifact


def options(threads: int = 0, isa: bytes | None = None) -> Options:
    return Options(ctypes.sizeof(Options), threads, isa)


@contextmanager
def loaded(library: Any, data: bytes, given: Options | None = None) -> Iterator[ctypes.c_void_p]:
    runtime = ctypes.c_void_p()
    assert library.bitplan_load_memory(data, len(data), given, ctypes.byref(runtime)) == OK, (
        library.bitplan_last_error()
    )
    try:
        yield runtime
    finally:
        library.bitplan_free(runtime)


def images(batch: int, dtype: type[np.generic] = np.uint8, seed: int = 0) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (batch, 3, 6, 5)).astype(dtype)
    return {"image": image, "features": rng.normal(size=(batch, 8)).astype(np.float32)}


def input_arrays(arrays: Sequence[NDArray[Any]]) -> Any:
    types = {np.dtype(np.uint8): U8, np.dtype(np.float32): F32}
    return (InputArray * len(arrays))(*((a.ctypes.data, a.nbytes, types[a.dtype]) for a in arrays))


def output_arrays(arrays: Sequence[NDArray[Any]]) -> Any:
    return (OutputArray * len(arrays))(*((a.ctypes.data, a.nbytes) for a in arrays))


class Call:
    """The arguments of one right call, to be spoilt."""

    def __init__(self, batch: int = 2, dtype: type[np.generic] = np.uint8, seed: int = 0) -> None:
        self.batch, self.named = batch, images(batch, dtype, seed)
        self.given = list(self.named.values())
        self.found = [np.full((batch, *shape), np.nan, np.float32) for shape in ((4,), (8, 6, 5))]
        self.inputs, self.outputs = input_arrays(self.given), output_arrays(self.found)
        self.input_count, self.output_count = 2, 2

    def run(self, library: Any, runtime: ctypes.c_void_p | None) -> int:
        return int(
            library.bitplan_run(runtime, self.batch, self.inputs, self.input_count, self.outputs, self.output_count)
        )

    def check(self, expected: Any) -> None:
        for array, name in zip(self.found, ("logits", "conv"), strict=True):
            np.testing.assert_array_equal(array, expected[name])


def explained(library: Any, *words: str) -> None:
    text = library.bitplan_last_error().decode()
    for word in words:
        assert word in text


def refused(library: Any, status: int, expected: int, *words: str) -> None:
    assert status == expected, library.bitplan_last_error()
    explained(library, *words)


def test_the_version_is_that_of_the_header(library: Any) -> None:
    (version,) = re.findall(r"#define BITPLAN_API_VERSION (\d+)", HEADER.read_text())
    assert library.bitplan_api_version() == int(version)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("threads", [0, 1, 3])
def test_it_computes_what_runtime_computes(library: Any, artifact: bytes, dtype: Any, threads: int) -> None:
    python = Runtime.from_bytes(artifact)
    with loaded(library, artifact, options(threads)) as runtime:
        for batch in (3, 1, 2):
            call = Call(batch, dtype)
            assert call.run(library, runtime) == OK
            call.check(python(call.named))


def test_it_runs_from_many_threads_at_once(library: Any, artifact: bytes) -> None:
    python = Runtime.from_bytes(artifact)
    with loaded(library, artifact, options(2)) as runtime, ThreadPoolExecutor(6) as pool:
        calls = [Call(1 + seed % 3, seed=seed) for seed in range(60)]
        assert set(pool.map(lambda call: call.run(library, runtime), calls)) == {OK}
    for call in calls:
        call.check(python(call.named))


def test_the_memory_of_an_artifact_is_not_needed_after_loading(library: Any, artifact: bytes) -> None:
    data = ctypes.create_string_buffer(artifact, len(artifact))
    with loaded(library, data, None) as runtime:
        ctypes.memset(data, 0xFF, len(artifact))
        call = Call()
        assert call.run(library, runtime) == OK
    call.check(Runtime.from_bytes(artifact)(call.named))


def test_what_is_described_is_what_python_says(library: Any, artifact: bytes) -> None:
    python = Runtime.from_bytes(artifact, threads=2, isa="portable")
    with loaded(library, artifact, options(2, b"portable")) as runtime:
        info = library.bitplan_describe(runtime).contents
        for ports, count, port_of in (
            (python.inputs, info.inputs, library.bitplan_input_port),
            (python.outputs, info.outputs, library.bitplan_output_port),
        ):
            found = [port_of(runtime, i).contents for i in range(count)]
            assert {p.name.decode(): tuple(p.shape[: p.rank]) for p in found} == ports
            assert [p.elements for p in found] == [np.prod(shape) for shape in ports.values()]
        assert (info.planned_batch, info.threads, info.isa) == (3, 2, b"portable")
        assert (info.weight_bytes, info.arena_bytes) == (python.weight_bytes, python.arena_bytes)
        assert bytes(info.policy_hash[:32]) == python.policy_hash
        said = python.preprocessing
        assert (tuple(info.mean[: info.channels]), tuple(info.std[: info.channels])) == (said.mean, said.std)
        assert (info.resize, info.crop) == (8, 6)


def test_a_file_that_cannot_be_read_is_named(library: Any, tmp_path: Path) -> None:
    for path in (tmp_path / "missing.bitplan", tmp_path):
        runtime = ctypes.c_void_p(1)
        status = library.bitplan_load_file(str(path).encode(), None, ctypes.byref(runtime))
        refused(library, status, SYSTEM, str(path))
        assert not runtime


def test_a_damaged_file_is_named_and_refused(library: Any, artifact: bytes, tmp_path: Path) -> None:
    path = tmp_path / "damaged.bitplan"
    for data, words in (
        (b"", "not a bitplan artifact"),
        (artifact[:-1], "truncated"),
        (artifact[:-1] + b"?", "checksum"),
        (b"GGUF" + artifact[4:], "not a bitplan artifact"),
    ):
        path.write_bytes(data)
        runtime = ctypes.c_void_p(1)
        status = library.bitplan_load_file(str(path).encode(), None, ctypes.byref(runtime))
        refused(library, status, FORMAT, str(path), words)
        assert not runtime
        status = library.bitplan_load_memory(data, len(data), None, ctypes.byref(runtime))
        refused(library, status, FORMAT, words)


def load_with(library: Any, artifact: bytes, given: Any) -> int:
    runtime = ctypes.c_void_p(1)
    given = ctypes.cast(ctypes.pointer(given), ctypes.POINTER(Options))
    status = library.bitplan_load_memory(artifact, len(artifact), given, ctypes.byref(runtime))
    assert bool(runtime) == (status == OK)
    library.bitplan_free(runtime)
    return int(status)


def test_options_that_cannot_be_meant_are_refused(library: Any, artifact: bytes) -> None:
    refused(library, load_with(library, artifact, options(isa=b"mmx")), OPTION, "'mmx'", "portable")
    refused(library, load_with(library, artifact, options(threads=10**6)), OPTION, "1000000", "256")
    for size in (0, 8, 1 << 40):
        refused(library, load_with(library, artifact, Options(size, 1, None)), ARGUMENT, str(size), "sizeof")


class LaterOptions(ctypes.Structure):
    _fields_ = (("known", Options), ("added", ctypes.c_size_t))


def test_options_of_a_later_version_are_taken_if_they_set_nothing_new(library: Any, artifact: bytes) -> None:
    size = ctypes.sizeof(LaterOptions)
    assert load_with(library, artifact, LaterOptions(Options(size, 1, None), 0)) == OK
    refused(
        library, load_with(library, artifact, LaterOptions(Options(size, 1, None), 1)), ARGUMENT, "use a newer library"
    )


@pytest.mark.parametrize("batch", [0, 4, 2**63])
def test_a_batch_that_was_not_planned_is_refused(library: Any, artifact: bytes, batch: int) -> None:
    call = Call()
    call.batch = batch
    with loaded(library, artifact) as runtime:
        refused(library, call.run(library, runtime), INPUT, str(batch), "1 to 3")
    assert np.isnan(call.found[0]).all()


def spoil_bytes(call: Call) -> None:
    call.inputs[0].bytes -= 1


def spoil_type(call: Call) -> None:
    call.inputs[1].type = 7


def spoil_other_type(call: Call) -> None:
    call.inputs[0].type = F32


def spoil_output_bytes(call: Call) -> None:
    call.outputs[1].bytes = 4


def spoil_input_count(call: Call) -> None:
    call.input_count = 1


def spoil_output_count(call: Call) -> None:
    call.output_count = 3


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_bytes, ["input 'image' has 179 bytes", "has 180"]),
        (spoil_type, ["input 'features'", "type 7", "BITPLAN_U8 or BITPLAN_F32"]),
        (spoil_other_type, ["input 'image' has 180 bytes", "has 720"]),
        (spoil_output_bytes, ["output 'conv' has 4 bytes", "has 1920"]),
        (spoil_input_count, ["1 inputs were given", "has 2"]),
        (spoil_output_count, ["3 outputs were given", "has 2"]),
    ],
)
def test_arrays_that_do_not_fit_are_refused(library: Any, artifact: bytes, spoil: Any, words: list[str]) -> None:
    call = Call()
    spoil(call)
    with loaded(library, artifact) as runtime:
        refused(library, call.run(library, runtime), INPUT, *words)
        assert all(np.isnan(array).all() for array in call.found)
        assert Call().run(library, runtime) == OK


def test_null_is_refused_by_every_function(library: Any, artifact: bytes) -> None:
    runtime = ctypes.c_void_p(1)
    refused(library, library.bitplan_load_file(None, None, ctypes.byref(runtime)), ARGUMENT, "path is NULL")
    assert not runtime
    refused(library, library.bitplan_load_memory(None, 8, None, ctypes.byref(runtime)), ARGUMENT, "data is NULL")
    refused(library, library.bitplan_load_memory(artifact, len(artifact), None, None), ARGUMENT, "runtime is NULL")
    refused(library, library.bitplan_load_file(b"x", None, None), ARGUMENT, "runtime is NULL")
    refused(library, Call().run(library, None), ARGUMENT, "runtime is NULL")
    for describe in (
        library.bitplan_describe,
        lambda null: library.bitplan_input_port(null, 0),
        lambda null: library.bitplan_output_port(null, 0),
    ):
        assert not describe(None)
    library.bitplan_free(None)
    with loaded(library, artifact) as runtime:
        for name in ("inputs", "outputs"):
            call = Call()
            setattr(call, name, None)
            refused(library, call.run(library, runtime), ARGUMENT, f"{name} is NULL")
            call = Call()
            getattr(call, name)[0].data = None
            refused(library, call.run(library, runtime), ARGUMENT, "data is NULL")


def test_a_port_that_is_not_there_is_none(library: Any, artifact: bytes) -> None:
    with loaded(library, artifact) as runtime:
        for port_of, words in ((library.bitplan_input_port, "2 inputs"), (library.bitplan_output_port, "2 outputs")):
            for index in (2, 2**64 - 1):
                assert not port_of(runtime, index)
                explained(library, words, str(index))


def test_the_text_of_an_error_belongs_to_its_thread(library: Any, artifact: bytes) -> None:
    assert load_with(library, artifact, options(isa=b"mmx")) == OPTION
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(library.bitplan_last_error).result() == b""
        assert pool.submit(load_with, library, artifact, options(threads=257)).result() == OPTION
        assert b"257" in pool.submit(library.bitplan_last_error).result()
    assert b"'mmx'" in library.bitplan_last_error()
    with loaded(library, artifact) as runtime:  # a call that succeeds leaves the text
        assert Call().run(library, runtime) == OK
    assert b"'mmx'" in library.bitplan_last_error()
