"""DeviceProfile: latencies by step, kept in one Arrow file per machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bitplan.errors import BitplanError, FileFormatError, UsageError
from bitplan.network import Conv2d, Input, Linear, Network, Node
from bitplan.profiles import device as device_module
from bitplan.profiles.arrow_file import write_table
from bitplan.profiles.device import DeviceProfile, Latency
from bitplan.profiles.device_schema import SCHEMA
from bitplan.profiles.fingerprint import Fingerprint
from bitplan.profiles.library import default_path
from bitplan.profiles.steps import StepKey, all_keys, policy_steps
from bitplan.variant import FLOAT32, Variant

HERE = Fingerprint("a processor (model 1)", ("avx2", "fma"), "avx2", 4, "1.0", "performance", "3.12.1", "0.1.0")
ANCHOR = Latency(1e-3, 0.9e-3, 1.2e-3, 200)
INT8 = Variant("int8")


def network() -> Network:
    return Network(
        (
            Node("image", Input(), (), (3, 4, 4)),
            Node("conv", Conv2d((4, 4)), ("image",), (8, 1, 1)),
            Node("other", Conv2d((1, 1)), ("conv",), (8, 1, 1)),
            Node("head", Linear(), ("other",), (8, 1, 8)),
        ),
        ("head",),
    )


def profile() -> DeviceProfile:
    keys = sorted(all_keys(network(), {layer.name: (INT8, FLOAT32) for layer in network().layers}))
    return DeviceProfile(
        HERE, ANCHOR, {key: Latency(n * 1e-6, n * 0.9e-6, n * 1.1e-6, 50) for n, key in enumerate(keys, 1)}
    )


def test_a_saved_profile_loads_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "device.arrow"
    profile().save(path)
    assert DeviceProfile.load(path) == profile()


def test_the_file_is_plain_arrow_with_its_units_stated(tmp_path: Path) -> None:
    profile().save(tmp_path / "device.arrow")
    with pa.ipc.open_file(tmp_path / "device.arrow") as reader:
        table = reader.read_all()
    assert table.num_rows == len(profile().entries)
    assert table.schema.field("median").metadata[b"unit"] == b"s"
    assert table.schema.field("batch").metadata[b"unit"] == b"images"
    assert HERE.cpu in table.schema.metadata[b"bitplan"].decode()


def test_prediction_is_the_sum_of_the_medians_of_the_policys_steps() -> None:
    variants = {"conv": FLOAT32, "other": INT8, "head": INT8}
    steps = policy_steps(network(), variants)
    assert "conv:u8" in steps or steps["conv"].output == "u8"
    expected = sum(profile().entries[key].median for key in steps.values())
    assert profile().predict(network(), variants) == pytest.approx(expected, rel=1e-12)


def test_a_step_that_was_not_measured_is_named_with_the_remedy() -> None:
    key = StepKey("conv2d i3x4x4", "int3", "bytes", "u8", 2, 1)
    with pytest.raises(UsageError, match=r"int3 by bytes -> u8 \| threads 2, batch 1.*optimize profile"):
        profile().latency(key)
    assert profile().missing([key, *profile().entries]) == {key}
    with pytest.raises(UsageError, match="threads 4"):
        profile().predict(network(), dict.fromkeys(("conv", "other", "head"), INT8), threads=4)


def test_merging_scales_to_the_first_profiles_anchor_and_the_newer_entry_wins() -> None:
    old = profile()
    shared, *_ = old.entries
    added = StepKey("another", "int8", "bytes", "u8", 1, 1)
    newer = DeviceProfile(
        replace(HERE, python="3.13.0"),
        ANCHOR.scaled(2),
        {shared: Latency(8e-6, 8e-6, 8e-6, 9), added: Latency(2e-6, 2e-6, 4e-6, 9)},
    )
    merged = old.merged(newer)
    assert merged.anchor == old.anchor
    assert merged.entries[shared].median == pytest.approx(4e-6)
    assert merged.entries[added].high == pytest.approx(2e-6)
    assert len(merged.entries) == len(old.entries) + 1
    assert merged.drift(ANCHOR.scaled(3)) == pytest.approx(3)


@pytest.mark.parametrize(
    "field, value", [("cpu", "another"), ("isa", "portable"), ("cores", 8), ("kernel_version", "2.0"), ("features", ())]
)
def test_profiles_of_other_machines_or_kernels_are_refused_for_claims(
    field: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(HERE, **{field: value})  # type: ignore[arg-type]
    monkeypatch.setattr(device_module, "this_machine", lambda: HERE)
    profile().require_this_machine()
    foreign = replace(profile(), fingerprint=other)
    with pytest.raises(UsageError, match=f"{field} is .* here and .* there.*optimize profile"):
        foreign.require_this_machine()
    with pytest.raises(UsageError, match="cannot be merged"):
        profile().merged(foreign)
    assert foreign.predict(network(), dict.fromkeys(("conv", "other", "head"), INT8)) > 0  # planning ahead


def test_governor_and_python_do_not_make_another_machine() -> None:
    other = replace(HERE, governor="powersave", python="3.13.0", bitplan="0.2.0")
    assert other.matches(HERE)
    assert other.hash == HERE.hash


def test_each_machine_has_its_file_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BITPLAN_CACHE", str(tmp_path))
    assert default_path(HERE).parent == tmp_path / "profiles"
    assert default_path(HERE) != default_path(replace(HERE, isa="portable"))
    monkeypatch.setenv("BITPLAN_PROFILES", str(tmp_path / "shared"))
    assert default_path(HERE).parent == tmp_path / "shared"
    monkeypatch.delenv("BITPLAN_PROFILES")
    monkeypatch.delenv("BITPLAN_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_path(HERE).parent == tmp_path / "home/.cache/bitplan/profiles"


def test_every_flipped_byte_and_every_truncation_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "device.arrow"
    profile().save(path)
    data = path.read_bytes()
    for position in [*range(0, len(data), 37), len(data) - 1]:
        path.write_bytes(data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :])
        with pytest.raises(FileFormatError, match=r"device\.arrow.*optimize profile"):
            DeviceProfile.load(path)
    for size in (0, 1, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(FileFormatError, match=r"device\.arrow.*optimize profile"):
            DeviceProfile.load(path)


def header(**changed: object) -> dict[str, object]:
    return {
        "fingerprint": HERE.to_json(),
        "anchor": {"median": 1e-3, "low": 1e-3, "high": 1e-3, "samples": 9},
    } | changed


def rows(**changed: list[object]) -> pa.Table:
    full = {
        "signature": ["s"],
        "variant": ["int8"],
        "kernel": ["bytes"],
        "output": ["u8"],
        "threads": [1],
        "batch": [1],
    }
    return pa.table(
        full | {"median": [1.0], "low": [1.0], "high": [1.0], "samples": [5], "estimated": [False]} | changed,
        schema=SCHEMA,
    )


@pytest.mark.parametrize(
    "table, head, form, version, reason",
    [
        (rows(), header(), "loss profile", 1, "is a 'loss profile'"),
        (rows(), header(), "device profile", 1, "has version 1; this bitplan reads version 3"),
        (rows(), header(), "device profile", [2], r"has version \[2\]; this bitplan reads version 3"),
        (rows().drop_columns(["low"]), header(), "device profile", 3, "has columns"),
        (rows(median=[float("nan")]), header(), "device profile", 3, "impossible entry"),
        (rows(median=[-1.0]), header(), "device profile", 3, "impossible entry"),
        (rows(high=[0.5]), header(), "device profile", 3, "impossible entry"),
        (rows(samples=[0]), header(), "device profile", 3, "impossible entry"),
        (rows(signature=[""]), header(), "device profile", 3, "impossible entry .*needs a signature"),
        (rows(variant=[""]), header(), "device profile", 3, "impossible entry .*and a variant"),
        (rows(output=["i8"]), header(), "device profile", 3, "impossible entry .*writes formats .* not 'i8'"),
        (rows(kernel=["magic"]), header(), "device profile", 3, "impossible entry .*not 'magic'"),
        (rows(threads=[0]), header(), "device profile", 3, "impossible entry .*at least one thread"),
        (rows(batch=[-1]), header(), "device profile", 3, "impossible entry .*one image"),
        (pa.concat_tables([rows(), rows(median=[2.0], high=[2.0])]), header(), "device profile", 3, "there twice"),
        (rows(), header(anchor={"median": 0, "low": 0, "high": 0, "samples": 1}), "device profile", 3, "takes no time"),
        (rows(), header(anchor={"median": 1}), "device profile", 3, "impossible entry"),
        (rows(), header(fingerprint={"cpu": "x"}), "device profile", 3, "impossible entry"),
        (rows(), header(fingerprint=HERE.to_json() | {"cores": "two"}), "device profile", 3, "impossible entry"),
    ],
)
def test_a_well_formed_file_with_impossible_content_is_refused(
    table: pa.Table, head: dict[str, object], form: str, version: Any, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "device.arrow"
    write_table(path, rows(), header(), "device profile", 3)
    assert len(DeviceProfile.load(path).entries) == 1
    write_table(path, table, head, form, version)
    with pytest.raises(FileFormatError, match=f"{reason}.*optimize profile"):
        DeviceProfile.load(path)


def test_a_profile_of_version_2_reads_as_one_in_which_every_step_was_timed(tmp_path: Path) -> None:
    write_table(tmp_path / "old.arrow", rows().drop_columns(["estimated"]), header(), "device profile", 2)
    old = DeviceProfile.load(tmp_path / "old.arrow")
    assert [latency.estimated for latency in old.entries.values()] == [False]
    assert old.recorded == ""


def test_every_field_states_its_meaning_and_every_number_its_unit(tmp_path: Path) -> None:
    profile().save(tmp_path / "device.arrow")
    with pa.ipc.open_file(tmp_path / "device.arrow") as reader:
        schema = reader.schema
    for field in schema:
        assert field.metadata[b"meaning"]
        assert (b"unit" in field.metadata) == (pa.types.is_floating(field.type) or pa.types.is_integer(field.type))


def test_estimates_stay_marked_and_count_as_missing(tmp_path: Path) -> None:
    (one, latency), (other, _), *_ = profile().entries.items()
    guessed = replace(latency, high=3 * latency.median, estimated=True)
    partly = replace(profile(), entries={**profile().entries, one: guessed}, recorded="2026-11-29T18:00:00+00:00")
    partly.save(tmp_path / "device.arrow")
    loaded = DeviceProfile.load(tmp_path / "device.arrow")
    assert loaded == partly
    assert loaded.missing([one, other]) == {one}
    assert (loaded.entries[one].error, loaded.entries[other].error) == (pytest.approx(2 * latency.median), 0)
    assert profile().merged(loaded).entries[one] == latency  # no estimate wins over a timing
    assert loaded.merged(profile()).entries[one] == latency


def test_a_missing_file_is_reported_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(BitplanError, match=r"nowhere\.arrow does not exist; measure it") as caught:
        DeviceProfile.load(tmp_path / "nowhere.arrow")
    assert "delete" not in str(caught.value)


def test_a_path_that_cannot_be_read_is_reported_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(BitplanError, match=r"cannot be read \(Is a directory\); check the path") as caught:
        DeviceProfile.load(tmp_path)
    assert "delete" not in str(caught.value)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "device.arrow"
    profile().save(path)

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        replace(profile(), entries={}).save(path)
    assert DeviceProfile.load(path) == profile()
    assert list(tmp_path.iterdir()) == [path]
