"""Programs whose CPUID instructions are replaced see a processor without the instructions above a level."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest
from cap_isa.patch import CPUID, TRAP, build_handler, patch

pytest.importorskip("capstone", reason="pip install 'bitplan[bench]'")
pytestmark = [
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="CPUID is an instruction of x86"),
]

PROGRAM = r"""
#include <cpuid.h>
#include <stdio.h>
volatile unsigned constant = 0x00A20F00u, *where = (unsigned *)&constant;
int main(void) {
  unsigned a, b, c, d;
  *where = 0x90A20F90u; /* bytes of CPUID inside another instruction */
  __cpuid_count(7, 0, a, b, c, d);
  printf("%u %u %u %x\n", b >> 5 & 1, b >> 16 & 1, c >> 11 & 1, constant);
  return 0;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cap")
    (folder / "probe.c").write_text(PROGRAM)
    subprocess.run(["cc", "-O1", "-o", folder / "probe", folder / "probe.c"], check=True)
    return folder / "probe"


def seen(program: Path, folder: Path, level: str) -> list[str]:
    environment = {"LD_PRELOAD": str(build_handler(folder)), "BITPLAN_CAP_ISA": level}
    return subprocess.run([program], env=environment, check=True, capture_output=True, text=True).stdout.split()


def test_instructions_are_told_from_constants(program: Path) -> None:
    original = program.read_bytes()
    patched, count = patch(original)
    differing = [i for i, (a, b) in enumerate(zip(original, patched, strict=True)) if a != b]
    assert count >= 1
    assert len(differing) == 2 * count
    assert original.count(CPUID) > count
    assert all(patched[i : i + 2] == TRAP for i in differing[::2])


def test_the_capped_program_sees_no_avx512(program: Path, tmp_path: Path) -> None:
    capped = tmp_path / "capped"
    capped.write_bytes(patch(program.read_bytes())[0])
    capped.chmod(0o755)
    real = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()
    assert seen(capped, tmp_path, "avx2") == [real[0], "0", "0", "90a20f90"]
    assert seen(capped, tmp_path, "avxvnni") == [real[0], "0", "0", "90a20f90"]
    assert seen(capped, tmp_path, "avx512vnni") == real


def test_unknown_levels_are_refused(program: Path, tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        seen(program, tmp_path, "sse2")


def test_only_elf_files_are_patched() -> None:
    with pytest.raises(ValueError, match="not a 64-bit little-endian ELF"):
        patch(b"MZ" + bytes(100))
