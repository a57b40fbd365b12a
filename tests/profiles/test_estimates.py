"""Estimates of steps that were not timed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bitplan.errors import UsageError
from bitplan.network import Conv2d, Input, Network, Node
from bitplan.profiles.device import DeviceProfile, Latency
from bitplan.profiles.estimates import completed
from bitplan.profiles.fingerprint import Fingerprint
from bitplan.profiles.library import profile_path
from bitplan.profiles.staleness import standing
from bitplan.profiles.steps import StepKey, StepKeys
from bitplan.variant import FLOAT32, Variant

HERE = Fingerprint("a processor", ("avx2",), "avx2", 4, "2", "performance")
SIZES = [(8 * c, 8 * n, side) for c in (2, 4, 8, 16) for n in (2, 6, 12) for side in (7, 14, 28)]


def step(channels: int, outputs: int, side: int, variant: Variant) -> StepKey:
    image = Node("image", Input(), (), (channels, side, side))
    layer = Node("conv", Conv2d((1, 1)), ("image",), (outputs, side, side))
    keys = StepKeys(Network((image, layer), ("conv",)))
    (key,) = keys.layer(layer, variant, frozenset(["u8"])).values()
    return key


def seconds(channels: int, outputs: int, side: int, variant: Variant) -> float:
    """What a made-up machine takes: calls, multiply-adds in tiles, values written; int4 takes a fifth longer than int8."""
    rows, channels, outputs = side * side, -(-channels // 64) * 64, -(-outputs // 16) * 16
    return (2e-6 + 1e-11 * channels * outputs * rows + 1e-10 * outputs * rows) * (
        1.2 if variant.encoding == "int4" else 1
    )


def profile() -> DeviceProfile:
    entries = {}
    for size in SIZES:
        for variant in map(Variant, ("int8", "int4")):
            time = seconds(*size, variant)
            entries[step(*size, variant)] = Latency(time, 0.9 * time, 1.1 * time, 100)
    return DeviceProfile(HERE, Latency(1e-3, 1e-3, 1e-3, 9), entries)


def test_shapes_between_those_timed_are_estimated_closely_and_marked() -> None:
    for size in ((24, 40, 21), (96, 64, 10), (48, 80, 14)):
        for variant in map(Variant, ("int8", "int4")):
            key = step(*size, variant)
            found = completed(profile(), [key]).entries[key]
            assert found.estimated
            assert found.median == pytest.approx(seconds(*size, variant), rel=0.1)
            assert found.low < found.median < found.high


def test_what_was_timed_stays_and_error_bars_grow_outside() -> None:
    near, far = step(24, 40, 21, Variant("int8")), step(2048, 4096, 112, Variant("int8"))
    found = completed(profile(), [near, far, *profile().entries])
    assert {key: found.entries[key] for key in profile().entries} == profile().entries
    bars = [found.entries[key].error / found.entries[key].median for key in (near, far)]
    assert bars[0] < bars[1]
    assert np.isfinite(bars).all()


def test_what_nothing_tells_of_is_refused_with_the_remedy() -> None:
    with pytest.raises(UsageError, match=r"float32 by floats.*optimize profile device"):
        completed(profile(), [step(24, 40, 21, FLOAT32)])


def test_a_profile_of_this_machine_is_stale_where_kernels_level_or_governor_changed() -> None:
    assert standing(HERE, HERE).reasons == ()
    for change, word in ({"kernel_version": "3"}, "version 3"), ({"isa": "amx"}, "amx"), ({"governor": ""}, "unknown"):
        other = Fingerprint.from_json(HERE.to_json() | change)
        (reason,) = standing(HERE, other).reasons
        assert word in reason
    elsewhere = Fingerprint.from_json(HERE.to_json() | {"cpu": "another", "isa": "amx"})
    assert (standing(HERE, elsewhere).here, standing(HERE, elsewhere).reasons) == (False, ())
    assert standing(HERE, None).here is None


def test_profiles_of_the_library_are_found_by_the_beginning_of_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BITPLAN_PROFILES", str(tmp_path))
    for name in ("board-one", "board-two"):
        profile().save(tmp_path / f"{name}.arrow")
    assert profile_path(Path("board-o")) == tmp_path / "board-one.arrow"
    assert profile_path(Path("elsewhere/x.arrow")) == Path("elsewhere/x.arrow")
    with pytest.raises(UsageError, match=r"2 profiles of the library begin with it.*optimize profile list"):
        profile_path(Path("board"))
    with pytest.raises(UsageError, match="none of this name"):
        profile_path(Path("laptop"))
