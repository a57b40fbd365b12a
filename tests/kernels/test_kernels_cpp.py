"""Every C++ kernel of every level against plain references (kernels_test.cpp), and the choice of the level."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ISA = HERE.parents[1] / "kernels" / "cpp" / "isa"
LEVELS = ["avx512vnni", "avx2", "portable"]


def flags_of(level: str) -> list[str]:
    """The flags that the package build gives this level."""
    found = re.findall(r"^set\((_\w+) (.*)\)$", (ISA / "sources.cmake").read_text(), re.MULTILINE)
    lists: dict[str, str] = dict(found)
    flags = lists["_flags"] + " " + lists.get(f"_{level}", "")
    return flags.replace("${_avx2}", lists["_avx2"]).split()


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one object per level and the program `kernels_test`."""
    compiler = os.environ.get("CXX") or shutil.which("g++")
    if compiler is None:
        pytest.skip("needs a C++ compiler: g++, or the variable CXX")
    folder = tmp_path_factory.mktemp("kernels")
    base = [*compiler.split(), "-std=c++20", "-Wall", "-Wextra", "-Werror"]
    units = {"levels": (ISA / "levels.cpp", ["-O1"]), "test": (HERE / "kernels_test.cpp", ["-O1", "-ffp-contract=off"])}
    for level in LEVELS if platform.machine() in ("x86_64", "AMD64") else ["portable"]:
        units[level] = (ISA / level / f"{level}.cpp", flags_of(level))

    def run(command: list[str]) -> None:
        result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stderr

    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(run, [*base, *flags, "-c", str(source), "-o", str(folder / f"{name}.o")])
            for name, (source, flags) in units.items()
        ]
        for job in jobs:
            job.result()
    run([*base, *(str(folder / f"{name}.o") for name in units), "-o", str(folder / "kernels_test")])
    return folder


def run_program(build: Path, *arguments: str, isa: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "BITPLAN_ISA"}
    if isa is not None:
        environment["BITPLAN_ISA"] = isa
    command = [str(build / "kernels_test"), *arguments]
    return subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def comparison(build: Path) -> subprocess.CompletedProcess[str]:
    return run_program(build)


def test_no_kernel_differs_from_its_reference(comparison: subprocess.CompletedProcess[str]) -> None:
    assert comparison.returncode == 0, comparison.stdout + comparison.stderr
    assert "0 mismatches" in comparison.stdout


@pytest.mark.parametrize("level", LEVELS)
def test_the_variable_forces_a_level(build: Path, comparison: subprocess.CompletedProcess[str], level: str) -> None:
    forced = run_program(build, "--active", isa=level)
    if f"tested {level}" in comparison.stdout:
        assert forced.stdout.strip() == f"active {level}"
        return
    assert forced.returncode != 0
    assert level in forced.stdout and "available here" in forced.stdout
    pytest.skip(f"this machine lacks {level}: its kernels were not tested")


def test_an_unknown_level_is_refused_with_the_available_ones(build: Path) -> None:
    refused = run_program(build, "--active", isa="mmx")
    assert refused.returncode != 0
    assert "BITPLAN_ISA=mmx names no known level" in refused.stdout
    assert "portable" in refused.stdout.split("available here:")[1]


def test_the_best_level_is_taken_where_nothing_is_forced(
    build: Path, comparison: subprocess.CompletedProcess[str]
) -> None:
    tested = re.findall(r"^tested (\w+)$", comparison.stdout, re.MULTILINE)
    for isa in (None, ""):
        assert run_program(build, "--active", isa=isa).stdout.strip() == f"active {tested[0]}"


def test_levels_share_no_code(build: Path) -> None:
    """A function with weak linkage that one level's flags compiled could be the one that all others call."""
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("needs nm")
    for level in LEVELS:
        if (build / f"{level}.o").exists():
            names = subprocess.check_output([nm, "-C", str(build / f"{level}.o")], text=True, timeout=60)
            shared = [line for line in names.splitlines() if re.search(r" [WVuT] ", line)]
            assert not shared, shared
