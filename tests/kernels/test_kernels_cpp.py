"""Every C++ kernel of every level against plain references (*_test.cpp), and the choice of the level."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ISA = HERE.parents[1] / "kernels" / "cpp" / "isa"
LEVELS = ["amx", "avx512vnni", "avx2vnni", "avx2", "portable"]
# Levels that not every compiler knows, and what tells levels.cpp that this one does.
OPTIONAL = {"amx": "-DBITPLAN_AMX", "avx2vnni": "-DBITPLAN_AVX2VNNI"}
# Levels whose instructions few machines have: the same code over instructions that AVX-512 VNNI has.
STAND_INS = {"amx": ["_avx512vnni"], "avx2vnni": ["_avx2", "-mavx512f", "-mavx512vl", "-mavx512vnni"]}
PROGRAMS = sorted(path.stem for path in HERE.glob("*_test.cpp"))


def flags_of(*names: str) -> list[str]:
    """The flags that these variables of sources.cmake hold; what begins with '-' stands for itself."""
    lists = dict(re.findall(r"^ *set\((_\w+) (.*)\)$", (ISA / "sources.cmake").read_text(), re.MULTILINE))
    flags: list[str] = []
    for name in names:
        if name.startswith("-"):
            flags.append(name)
        else:
            flags += flags_of(*lists[name].replace("${", " ").replace("}", " ").split())
    return flags


@dataclass(frozen=True)
class Build:
    """A folder with one object per level and the programs; `levels` are those that the compiler knows."""

    folder: Path
    levels: list[str]

    def run(self, program: str, *arguments: str, isa: str | None = None) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name != "BITPLAN_ISA"}
        if isa is not None:
            environment["BITPLAN_ISA"] = isa
        command = [str(self.folder / program), *arguments]
        return subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    compiler = os.environ.get("CXX") or shutil.which("g++")
    if compiler is None:
        pytest.skip("needs a C++ compiler: g++, or the variable CXX")
    folder = tmp_path_factory.mktemp("kernels")
    base = [*compiler.split(), "-std=c++20", "-Wall", "-Wextra", "-Werror"]
    # Sanitized code takes minutes to optimise, and its extra branches mislead the warnings about uninitialised variables.
    last = ["-O1", "-Wno-error"] if "-fsanitize" in compiler else []

    def run(*command: str) -> None:
        result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=900)
        assert result.returncode == 0, result.stderr

    def knows(level: str) -> bool:
        command = [*base, *flags_of(f"_{level}"), "-x", "c++", "-fsyntax-only", os.devnull]
        return subprocess.run(command, check=False, capture_output=True, timeout=60).returncode == 0

    objects: dict[str, tuple[Path, list[str]]] = {"portable": (ISA / "portable" / "portable.cpp", flags_of("_flags"))}
    if platform.machine() in ("x86_64", "AMD64"):
        for level in LEVELS[:-1]:
            if level not in OPTIONAL or knows(level):
                objects[level] = (ISA / level / f"{level}.cpp", flags_of("_flags", f"_{level}"))
        for level, flags in STAND_INS.items():
            name = f"{level}_stand_in"
            objects[name] = (HERE / f"{name}.cpp", flags_of("_flags", *flags))
    levels = [level for level in LEVELS if level in objects]
    objects["levels"] = (ISA / "levels.cpp", ["-O1", *(OPTIONAL[level] for level in levels if level in OPTIONAL)])
    tests = {name: (HERE / f"{name}.cpp", ["-O1", "-ffp-contract=off"]) for name in PROGRAMS}

    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(run, *base, *flags, *last, "-c", str(source), "-o", str(folder / f"{name}.o"))
            for name, (source, flags) in (objects | tests).items()
        ]
        for job in jobs:
            job.result()
    for name in PROGRAMS:
        run(*base, *(str(folder / f"{part}.o") for part in [name, *objects]), "-o", str(folder / name))
    return Build(folder, levels)


@pytest.fixture(scope="module")
def output(build: Build) -> str:
    """What the program says that tests the levels' products."""
    return build.run("products_test").stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_kernel_differs_from_its_reference(build: Build, program: str) -> None:
    result = build.run(program)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 mismatches" in result.stdout


@pytest.mark.parametrize("level", LEVELS)
def test_the_variable_forces_a_level(build: Build, output: str, level: str) -> None:
    forced = build.run("kernels_test", "--active", isa=level)
    if f"tested {level}\n" in output:
        assert forced.stdout.strip() == f"active {level}"
        return
    assert forced.returncode != 0
    assert level in forced.stdout and "available here" in forced.stdout
    pytest.skip(f"this machine lacks {level}: its kernels were not tested")


@pytest.mark.parametrize("level", STAND_INS)
def test_a_level_that_few_machines_have_is_tested_by_a_stand_in(output: str, level: str) -> None:
    if "tested avx512vnni\n" not in output:
        pytest.skip(f"this machine lacks avx512vnni, which the stand-in of {level} needs")
    assert f"tested {level}_stand_in\n" in output


def test_an_unknown_level_is_refused_with_the_available_ones(build: Build) -> None:
    refused = build.run("kernels_test", "--active", isa="mmx")
    assert refused.returncode != 0
    assert "BITPLAN_ISA=mmx names no known level" in refused.stdout
    assert "portable" in refused.stdout.split("available here:")[1]


def test_the_best_level_is_taken_where_nothing_is_forced(build: Build, output: str) -> None:
    tested = re.findall(r"^tested (\w+)$", output, re.MULTILINE)
    for isa in (None, ""):
        assert build.run("kernels_test", "--active", isa=isa).stdout.strip() == f"active {tested[0]}"


def test_levels_share_no_code(build: Build) -> None:
    """A function with weak linkage that one level's flags compiled could be the one that all others call."""
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("needs nm")
    for level in build.levels:
        names = subprocess.check_output([nm, "-C", str(build.folder / f"{level}.o")], text=True, timeout=60)
        shared = [line for line in names.splitlines() if re.search(r" [WVuT] ", line)]
        assert not shared, shared
