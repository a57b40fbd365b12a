"""What is timed beside what."""

from __future__ import annotations

import pytest
from harness.cases import COLD_BYTES, FEATURES, PARTS, Scope
from harness.levels import NATIVE, peer_level, weight_bits
from harness.workloads import ColdLinear, from_json, to_json

from bitplan.encodings import encoding_of
from bitplan.network import WeightShape
from bitplan.variant import Variant

SCOPE = Scope(("avx512vnni", "avx2", "portable"), "avx512vnni", (1, 2))


@pytest.mark.parametrize("part", PARTS)
def test_every_case_times_us_and_survives_the_pipe(part: str) -> None:
    cases = list(PARTS[part](SCOPE))
    assert {case.isa for case in cases} == set(SCOPE.isas)
    for case in cases:
        assert any(candidate.engine == "bitplan" for candidate in case.candidates)
        assert len(set(case.candidates)) == len(case.candidates)
        for workload in (case.workload, case.rest, *(candidate.workload for candidate in case.candidates)):
            assert workload is None or from_json(to_json(workload)) == workload


def test_peers_see_the_level_of_ours() -> None:
    levels = ("avx512vnni", "avxvnni", "avx2", "portable")
    assert [peer_level(isa, "avx512vnni") for isa in levels] == [NATIVE, "avxvnni", "avx2", "avx2"]
    assert peer_level("avx512vnni", "amx") == "avx512vnni"


def test_weights_have_7_bits_where_8_saturate() -> None:
    assert (weight_bits("avx2"), weight_bits("avxvnni"), weight_bits("avx512vnni")) == (7, 8, 8)


def test_cold_weights_exceed_every_cache() -> None:
    for case in PARTS["linear"](SCOPE):
        for candidate in case.candidates:
            assert isinstance(candidate.workload, ColdLinear)
            variant = Variant.parse(candidate.variant.partition(":")[0])
            size = encoding_of(variant).size_bytes(WeightShape(FEATURES, FEATURES), variant)
            assert candidate.workload.copies * size > COLD_BYTES


def test_unknown_workloads_are_named() -> None:
    with pytest.raises(ValueError, match="unknown workload 'pool'"):
        from_json({"kind": "pool"})
