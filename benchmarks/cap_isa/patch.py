"""Copies of a peer's shared libraries that see a processor without the instructions above an ISA level.

    python benchmarks/cap_isa/patch.py LIBRARY COPY

Libraries choose their kernels by the CPUID instruction, which an ordinary program cannot mask on processors without
CPUID faulting. So every `cpuid` (0F A2) of a copied library is replaced by `int3; nop` (CC 90), two bytes as well, and
a preloaded signal handler (cap_isa.c) answers in its place. Which of the byte pairs 0F A2 are instructions is found by
disassembly from LEAD bytes before it: wherever that starts, it falls into step within some tens of instructions.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

CPUID, TRAP = b"\x0f\xa2", b"\xcc\x90"
LEVELS = ("avx2", "avxvnni", "avx512vnni")
"""The levels that cap_isa.c knows."""
LEAD = 4096
"""How far before a candidate the disassembly starts, in bytes."""
LONGEST = 15
"""Bytes of the longest instruction."""
EXECUTABLE = 1
LOAD = 1


def executable_ranges(elf: bytes) -> Iterator[tuple[int, int]]:
    """File offsets (start, end) of the executable segments of a 64-bit ELF file. Raises ValueError for anything else."""
    if elf[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file; give an x86-64 shared library")
    (table,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    for number in range(count):
        kind, flags, offset, _, _, length = struct.unpack_from("<IIQQQQ", elf, table + number * size)
        if kind == LOAD and flags & EXECUTABLE:
            yield offset, offset + length


def cpuid_offsets(code: bytes, start: int, end: int) -> list[int]:
    """Offsets of the `cpuid` instructions in code[start:end]."""
    import capstone

    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.skipdata = True  # goes on behind bytes that are no instruction
    found = []
    at = code.find(CPUID, start, end)
    while at >= 0:
        lead = max(start, at - LEAD)
        instructions = decoder.disasm_lite(code[lead : at + LONGEST], lead)
        if any(address == at and name == "cpuid" for address, _, name, _ in instructions):
            found.append(at)
        at = code.find(CPUID, at + 1, end)
    return found


def patch(library: bytes) -> tuple[bytes, int]:
    """The library with its `cpuid` instructions replaced, and how many there were."""
    patched = bytearray(library)
    count = 0
    for start, end in executable_ranges(library):
        for offset in cpuid_offsets(library, start, end):
            patched[offset : offset + 2] = TRAP
            count += 1
    return bytes(patched), count


def build_handler(folder: Path) -> Path:
    """Compiles cap_isa.c with the C compiler ($CC, else cc) and returns the library to preload."""
    source, library = Path(__file__).with_name("cap_isa.c"), folder / "cap_isa.so"
    if not library.exists() or library.stat().st_mtime < source.stat().st_mtime:
        made = folder / f"cap_isa-{os.getpid()}.so"
        subprocess.run([os.environ.get("CC", "cc"), "-O2", "-shared", "-fPIC", "-o", made, source], check=True)
        made.replace(library)
    return library


def capped_package(package: Path, libraries: list[str], cache: Path) -> tuple[Path, int]:
    """A folder for the front of PYTHONPATH in which `package` is a copy whose `libraries` (glob patterns inside the
    package) are patched, and the number of patched instructions. Made once per content and kept under `cache`."""
    originals = sorted(path for pattern in libraries for path in package.glob(pattern))
    if not originals:
        raise FileNotFoundError(f"no library of {package} matches {libraries}")
    digest = hashlib.sha256()
    for path in originals:
        digest.update(path.read_bytes())
    root = cache / f"{package.name}-{digest.hexdigest()[:16]}"
    count_file = root / "patched"
    if not count_file.exists():
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(package, root / package.name, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
        total = 0
        for path in originals:
            patched, count = patch(path.read_bytes())
            (root / package.name / path.relative_to(package)).write_bytes(patched)
            total += count
        count_file.write_text(str(total))
    return root, int(count_file.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path)
    parser.add_argument("copy", type=Path)
    arguments = parser.parse_args()
    patched, count = patch(arguments.library.read_bytes())
    arguments.copy.write_bytes(patched)
    print(f"{count} cpuid instructions replaced; preload cap_isa.so with BITPLAN_CAP_ISA={'|'.join(LEVELS)}")


if __name__ == "__main__":
    main()
