"""Threads: the same results for any number of them, beside torch's own, and no data race that the sanitizer can see."""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bitplan.kernels import Runtime
from bitplan.kernels.runtime import RawArray
from bitplan.network import Conv2d, Input, Network, Pad, Softmax
from bitplan.variant import Variant

from .networks import make_case, network_of, random_inputs, residual_network

HERE = Path(__file__).resolve().parent


def wide_network() -> Network:
    """Values large enough for every kind of step to be cut into several tasks."""
    return network_of(
        [
            ("x", Input(), (), (3, 48, 48)),
            ("conv", Conv2d((3, 3), (1, 1), (1, 1, 1, 1)), ("x",), (24, 48, 48)),
            ("pad", Pad((2, 1, 1, 2)), ("conv",), (24, 51, 51)),
            ("head", Conv2d((1, 1)), ("pad",), (10, 51, 51)),
            ("softmax", Softmax(), ("head",), (10, 51, 51)),
        ],
        ["softmax"],
    )


@dataclass(frozen=True)
class Threaded:
    """An artifact with a batch of inputs, and what one thread makes of them."""

    artifact: bytes
    inputs: dict[str, RawArray]
    right: dict[str, NDArray[np.float32]]

    def runs(self, threads: int, count: int) -> bool:
        runtime = Runtime.from_bytes(self.artifact, threads=threads)
        found = [runtime(self.inputs) for _ in range(count)]
        return all(np.array_equal(each[name], value) for each in found for name, value in self.right.items())


@pytest.fixture(scope="module", params=[residual_network, wide_network], ids=["residual", "wide"])
def case(request: pytest.FixtureRequest) -> Threaded:
    rng = np.random.default_rng(5)
    network: Network = request.param()
    variants = dict.fromkeys((node.name for node in network.layers), Variant("int8"))
    artifact = make_case(network, variants, random_inputs(network, 2, rng, np.uint8), rng).artifact
    inputs: dict[str, RawArray] = {
        node.name: rng.integers(0, 256, (2, *node.shape), np.uint8) for node in network if isinstance(node.op, Input)
    }
    return Threaded(artifact, inputs, Runtime.from_bytes(artifact)(inputs))


@pytest.mark.parametrize("threads", [2, 3, 8, 64])  # more than there are processors
def test_results_are_the_same_bits_for_every_number_of_threads(threads: int, case: Threaded) -> None:
    assert case.runs(threads, 5)


def test_beside_torch_and_its_own_threads(case: Threaded) -> None:
    torch = pytest.importorskip("torch")
    matrix = torch.rand(300, 300)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        product = matrix @ matrix

        def products() -> bool:
            return all(torch.equal(matrix @ matrix, product) for _ in range(20))

        with ThreadPoolExecutor(3) as pool:
            jobs = [pool.submit(products), *(pool.submit(case.runs, threads, 20) for threads in (2, 3))]
            assert all(job.result() for job in jobs)
    finally:
        torch.set_num_threads(before)


def test_the_pool_has_no_data_race(tmp_path: Path) -> None:
    compiler = os.environ.get("CXX") or shutil.which("g++")
    if compiler is None:
        pytest.skip("needs a C++ compiler: g++, or the variable CXX")
    command = [*compiler.split(), "-std=c++20", "-g", "-O1", "-fsanitize=thread"]
    (tmp_path / "empty.cpp").write_text("int main() {}\n")

    def runs(source: Path, program: Path) -> subprocess.CompletedProcess[str]:
        built = subprocess.run(
            [*command, str(source), "-o", str(program)], check=False, capture_output=True, text=True, timeout=600
        )
        if built.returncode:
            return built
        return subprocess.run([str(program)], check=False, capture_output=True, text=True, timeout=600)

    if runs(tmp_path / "empty.cpp", tmp_path / "empty").returncode:
        pytest.skip("programs with the thread sanitizer cannot be built or run here")
    found = runs(HERE / "threads_test.cpp", tmp_path / "threads_test")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "0 mismatches" in found.stdout
