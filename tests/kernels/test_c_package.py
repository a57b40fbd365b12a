"""What installing the library for C gives: a package that CMake and pkg-config find, and an example that it builds."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitplan import __version__
from bitplan.example import INPUT_SHAPE, PREPROCESSING, example_data, example_module
from bitplan.kernels import Runtime
from bitplan.kernels.artifact import pack_artifact
from bitplan.variant import Variant

from .c_library import ROOT, SANITIZED_BUILD, Installed, call, cmake, configure, install, run, succeed, tool

EXAMPLE = ROOT / "examples" / "run_artifact"


@pytest.fixture(scope="module", params=["static", "shared"])
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return install(tmp_path_factory.mktemp("prefix"), shared=request.param == "shared")


@pytest.fixture(scope="module")
def program(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, built with what is installed."""
    build = tmp_path_factory.mktemp("example")
    options = [f"-DCMAKE_PREFIX_PATH={installed.prefix}", "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON"]
    succeed(configure(EXAMPLE, build, *options))
    succeed(cmake("--build", build))
    return build / "run_artifact"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded example as int8 and ternary layers."""
    torch = pytest.importorskip("torch")
    from bitplan.capture import capture
    from bitplan.policies.realise import realise

    network, weights = capture(example_module(), torch.zeros(2, *INPUT_SHAPE), preprocessing=PREPROCESSING)
    choices = [Variant("int8"), Variant("ternary")]
    variants = {node.name: choices[i % 2] for i, node in enumerate(network.layers)}
    carried = realise(network, weights, example_data().calibration_x[:32], variants, recoveries=())
    path = tmp_path_factory.mktemp("artifact") / "network.bitplan"
    path.write_bytes(pack_artifact(network, weights, carried.layers, carried.ranges))
    return path


def test_only_what_a_user_needs_is_installed(installed: Installed) -> None:
    files = {path.name for path in installed.prefix.rglob("*") if not path.is_dir()}
    libraries = {"libbitplan.so", "libbitplan.so.1", f"libbitplan.so.{__version__}"}
    package = {"bitplanConfig.cmake", "bitplanConfigVersion.cmake", "bitplanTargets.cmake"}
    assert files == package | {"bitplanTargets-release.cmake", "bitplan.h", "bitplan.pc"} | (
        libraries if installed.shared else {"libbitplan.a"}
    )


def test_the_shared_library_exports_the_interface_alone(installed: Installed) -> None:
    if not installed.shared:
        pytest.skip("a static library exports nothing")
    table = run(tool("nm"), "-D", "--defined-only", installed.find("libbitplan.so"))
    symbols = {line.split()[-1].split("@")[0] for line in table.splitlines()} - {"BITPLAN_1"}
    declared = set(re.findall(r"BITPLAN_API [^;]*?(bitplan_\w+)\(", (ROOT / "kernels/include/bitplan.h").read_text()))
    assert symbols == declared and len(declared) == 9


@pytest.mark.parametrize(("dtype", "threads"), [(np.uint8, 1), (np.float32, 2)])
def test_the_example_computes_what_python_does(
    program: Path, artifact: Path, tmp_path: Path, dtype: Any, threads: int
) -> None:
    images = example_data().test_x[:20].astype(dtype)
    np.save(tmp_path / "images.npy", images)
    printed = run(program, artifact, tmp_path / "images.npy", str(threads))
    runtime = Runtime.load(artifact)
    scores = np.concatenate([runtime(image[None]) for image in images])
    found = re.findall(r"^image (\d+): class (\d+), score (\S+)$", printed, re.MULTILINE)
    assert [int(image) for image, _, _ in found] == list(range(20))
    assert [int(top) for _, top, _ in found] == scores.argmax(1).tolist()
    np.testing.assert_array_equal(np.array([score for _, _, score in found], np.float32), scores.max(1))
    latency, last = re.findall(r"^(\S+) ms per image \(median of 20\), (.*)$", printed, re.MULTILINE)[0]
    assert float(latency) > 0 and last == f"{threads} thread(s), {runtime.isa}"


def fails(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 1, result.stdout + result.stderr
    for word in words:
        assert word in result.stderr


def test_the_example_says_what_is_wrong(program: Path, artifact: Path, tmp_path: Path) -> None:
    images = tmp_path / "images.npy"
    np.save(images, np.zeros((2, *INPUT_SHAPE), np.uint8))
    fails(call(program, tmp_path / "none.bitplan", images), "none.bitplan", "No such file")
    fails(call(program, images, images), "images.npy", "not a bitplan artifact")
    fails(call(program, artifact, images, "1000"), "threads is 1000", "256")
    fails(call(program, artifact, artifact), "network.bitplan: it is no .npy file")
    fails(call(program, artifact, tmp_path / "none.npy"), "none.npy: it cannot be opened")
    np.save(images, np.zeros((2, 3, 5), np.uint8))
    fails(call(program, artifact, images), "the images are not [N, 1, 28, 28]")
    np.save(images, np.zeros((2, *INPUT_SHAPE)))
    fails(call(program, artifact, images), "neither uint8 nor float32")
    np.save(images, np.zeros((2, *INPUT_SHAPE), np.uint8))
    images.write_bytes(images.read_bytes()[:-1])
    fails(call(program, artifact, images), "images.npy: it is truncated")


def test_pkg_config_finds_it(installed: Installed, tmp_path: Path) -> None:
    if SANITIZED_BUILD:
        pytest.skip("a sanitized library also needs the sanitizers' libraries")
    (folder,) = {path.parent for path in installed.prefix.rglob("bitplan.pc")}
    setting = f"PKG_CONFIG_PATH={folder}"
    assert run(tool("env"), setting, tool("pkg-config"), "--modversion", "bitplan").strip() == __version__
    flags = run(tool("env"), setting, tool("pkg-config"), "--cflags", "--libs", "bitplan").split()
    sources = sorted(EXAMPLE.glob("*.c"))
    libraries = f"-Wl,-rpath,{installed.find('libbitplan.so').parent}" if installed.shared else "-Wall"
    run(tool("gcc"), "-std=c99", *sources, *flags, libraries, "-o", tmp_path / "example")
    assert "usage" in call(tmp_path / "example").stderr


def test_a_project_of_c_alone_is_told_what_the_static_library_needs(installed: Installed, tmp_path: Path) -> None:
    lists = "cmake_minimum_required(VERSION 3.20)\nproject(user LANGUAGES C)\nfind_package(bitplan REQUIRED)\n"
    (tmp_path / "CMakeLists.txt").write_text(lists)
    result = configure(tmp_path, tmp_path / "build", f"-DCMAKE_PREFIX_PATH={installed.prefix}")
    if installed.shared:
        succeed(result)
    else:
        assert result.returncode != 0 and "project(... LANGUAGES C CXX)" in " ".join(result.stderr.split())
