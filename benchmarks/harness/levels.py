"""ISA levels: ours, and the one a peer is capped at to be comparable."""

from __future__ import annotations

NATIVE = "native"
"""All that the machine has."""


def peer_level(ours: str, best: str) -> str:
    """The level of peers that stand beside our kernels of level `ours` on a machine whose best is `best`: everything
    the machine has beside our best, else the cap that admits the same instructions. There is no cap below avx2."""
    if ours == best:
        return NATIVE
    if ours.startswith("avx512"):
        return "avx512vnni"
    return "avxvnni" if "vnni" in ours else "avx2"


def weight_bits(level: str) -> int:
    """Bits of 8-bit weights that peers multiply exactly at a level: without VNNI, sums of two products saturate."""
    return 7 if level in ("avx2", "portable") or (level == NATIVE and not machine_has_vnni()) else 8


def machine_has_vnni() -> bool:
    return any("vnni" in flag for flag in machine_flags())


def machine_flags() -> frozenset[str]:
    """The processor's features in the spelling of /proc/cpuinfo."""
    with open("/proc/cpuinfo") as info:
        for line in info:
            if line.startswith("flags"):
                return frozenset(line.split(":")[1].split())
    return frozenset()
