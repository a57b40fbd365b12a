"""The loss profile's numbers and its file."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from bitplan.errors import FileFormatError, UsageError
from bitplan.profiles.link import Link
from bitplan.profiles.loss import SCHEMA, LossProfile, cache_path
from bitplan.variant import FLOAT32, Variant

INT4, APB = Variant("int4"), Variant.parse("apb:kept=0.005")
HASHES = {"network": "a", "weights": "b", "data": "c", "encodings": "d"}


@pytest.fixture
def profile():
    random = np.random.default_rng(3)
    increases = {
        (layer, variant): random.random(50, np.float32)
        for layer in ("one", "zwei ü")
        for variant in (INT4, APB, FLOAT32)
    }
    return LossProfile("kl", HASHES, increases)


def test_mean_and_standard_error(profile):
    values = profile.increases["one", APB].astype(np.float64)
    assert profile.loss("one", APB) == pytest.approx(values.mean(), rel=1e-9)
    assert profile.standard_error("one", APB) == pytest.approx(values.std(ddof=1) / np.sqrt(50), rel=1e-6)
    assert profile.layers == ("one", "zwei ü")
    assert profile.variants("one") == (INT4, APB, FLOAT32)
    assert profile.images == 50


def test_what_was_not_measured_is_named(profile):
    with pytest.raises(UsageError, match="'one' as ternary; measure it"):
        profile.loss("one", Variant("ternary"))


def test_saving_and_loading_gives_the_same_profile(profile, tmp_path):
    profile.save(tmp_path / "new" / "loss.arrow")
    again = LossProfile.load(tmp_path / "new" / "loss.arrow")
    assert (again.metric, again.hashes) == (profile.metric, profile.hashes)
    assert list(again.increases) == list(profile.increases)
    for key, values in profile.increases.items():
        assert again.increases[key].dtype == np.float32
        assert np.array_equal(again.increases[key], values)


def test_pairs_estimator_and_link_are_kept_too(profile, tmp_path):
    pairs = np.random.default_rng(0).normal(size=(6, 6))
    whole = replace(profile, estimator="gram", pairs=pairs + pairs.T, semidefinite=True, link=Link(2.0, 0.9, 1.5))
    whole.save(tmp_path / "loss.arrow")
    again = LossProfile.load(tmp_path / "loss.arrow")
    assert np.array_equal(again.pairs, whole.pairs)
    assert (again.estimator, again.semidefinite, again.link) == ("gram", True, whole.link)
    assert again.same_origin("kl", HASHES, "gram") and not again.same_origin("kl", HASHES)


@pytest.mark.parametrize(
    "estimator, link, scale",
    [
        ("separable", Link(), "kl"),
        ("clado", Link(), "kl"),
        ("tempered", Link(), "tempered score"),
        ("gram", Link(), "gram score"),
        ("gram", Link(2.0), "kl"),
    ],
)
def test_losses_say_what_they_are_in(profile, estimator, link, scale):
    assert replace(profile, estimator=estimator, link=link).scale == scale


def test_an_empty_profile_can_be_kept(tmp_path):
    LossProfile("kl", HASHES, {}).save(tmp_path / "loss.arrow")
    assert LossProfile.load(tmp_path / "loss.arrow").layers == ()


def test_the_file_is_plain_arrow_that_explains_itself(profile, tmp_path):
    profile.save(tmp_path / "loss.arrow")
    table = pa.ipc.open_file(tmp_path / "loss.arrow").read_all()
    assert table.num_rows == 6
    assert all(field.metadata[b"meaning"] for field in table.schema)
    assert table.column("loss")[0].as_py() == profile.loss("one", INT4)
    assert table.schema.names == SCHEMA.names


def test_every_damage_is_noticed(profile, tmp_path):
    path = tmp_path / "loss.arrow"
    profile.save(path)
    data = path.read_bytes()
    random = np.random.default_rng(0)
    damaged = [b"", b"ARROW1", data[: len(data) // 2], data[:-1], data + b"x", b"\0" * len(data)]
    for position in random.integers(0, len(data), 60):
        flipped = bytearray(data)
        flipped[position] ^= 1 << int(random.integers(8))
        damaged.append(bytes(flipped))
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match=r"loss\.arrow.*delete the file and measure it"):
            LossProfile.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileFormatError, match=r"loss profile .*nowhere\.arrow does not exist"):
        LossProfile.load(tmp_path / "nowhere.arrow")


def test_a_failed_save_leaves_the_old_file(profile, tmp_path, monkeypatch):
    path = tmp_path / "loss.arrow"
    profile.save(path)
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        LossProfile("kl", HASHES, {}).save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["loss.arrow"]


def test_profiles_are_checked_when_made():
    with pytest.raises(ValueError, match="hashes"):
        LossProfile("kl", {"network": "a"}, {})
    with pytest.raises(ValueError, match="same images"):
        LossProfile("kl", HASHES, {("a", INT4): np.zeros(3, np.float32), ("b", INT4): np.zeros(4, np.float32)})
    with pytest.raises(ValueError, match="'a' as int4 is not finite"):
        LossProfile("kl", HASHES, {("a", INT4): np.array([np.nan], np.float32)})
    two = {("a", INT4): np.zeros(3, np.float32), ("b", INT4): np.zeros(3, np.float32)}
    with pytest.raises(ValueError, match=r"shape \(2, 2\)"):
        LossProfile("kl", HASHES, two, pairs=np.zeros((3, 3)))
    with pytest.raises(ValueError, match="same in either order"):
        LossProfile("kl", HASHES, two, pairs=np.array([[0.0, 1.0], [0.0, 0.0]]))


def test_the_cache_lies_where_it_is_told_and_depends_on_everything(tmp_path, monkeypatch):
    monkeypatch.setenv("BITPLAN_CACHE", str(tmp_path))
    path = cache_path("kl", HASHES)
    assert path.parent == tmp_path / "loss"
    others = {cache_path("kl", {**HASHES, name: "z"}) for name in HASHES} | {cache_path("task", HASHES)}
    others |= {cache_path("kl", HASHES, "gram")}
    assert len(others | {path}) == 7
    monkeypatch.delenv("BITPLAN_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_path("kl", HASHES).is_relative_to(tmp_path / "home" / ".cache" / "bitplan")
