"""Measuring the loss profile: what it means, and that it survives interruption."""

from __future__ import annotations

import shutil
import signal
from importlib.resources import files

import numpy as np
import pytest

from bitplan.encodings import default_menu
from bitplan.errors import DataError, UsageError
from bitplan.policies.realise import realise
from bitplan.policies.realise.front import peak_bytes
from bitplan.policies.realise.steps import recoveries
from bitplan.profiles.journal import Journal
from bitplan.profiles.loss import LossProfile
from bitplan.profiles.measure_loss import measure, profile_hashes
from bitplan.profiles.metrics import increase
from bitplan.simulate import Simulator
from bitplan.variant import FLOAT32, Variant

pytest.importorskip("torch")

INT8, INT2, BINARY = Variant("int8"), Variant("int2"), Variant("binary")


KILLED = """
import os, signal, sys
from pathlib import Path
from bitplan.profiles.measure_loss import measure
starts = []
def report(done, total, text):
    starts.append(done)
    if done >= int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
measure(*subject, checkpoint=Path(sys.argv[1]), progress=report).save(Path(sys.argv[3]))
print(starts[0])
"""


@pytest.fixture(scope="module")
def profile(small, menu_of):
    return measure(small.network, small.weights, small.images, menu_of(small.network, *default_menu()), batch=16)


def losses_of(small, result):
    """By a whole run of the simulation, without any cached value."""
    simulator = Simulator(small.network, small.weights)
    full, ours = (
        {name: value.numpy() for name, value in simulator.outputs(small.images, *arguments).items()}
        for arguments in ((), (result.layers, result.ranges))
    )
    return increase(small.network, "kl", full)(ours, slice(0, len(small.images)))


def same(a, b):
    return list(a.increases) == list(b.increases) and all(
        np.array_equal(a.increases[k], b.increases[k]) for k in a.increases
    )


def test_every_choice_is_measured_and_float32_costs_nothing(small, profile):
    assert profile.metric == "kl"
    assert profile.images == len(small.images)
    for node in small.network.layers:
        assert profile.variants(node.name) == default_menu()
        assert not profile.per_image(node.name, FLOAT32).any()
        assert 0 < profile.loss(node.name, INT8) < profile.loss(node.name, BINARY)


@pytest.mark.parametrize("layer", ["stem", "depthwise", "project", "expand", "join", "classifier"])
@pytest.mark.parametrize("variant", [INT2, Variant.parse("apb:kept=0.02")], ids=str)
def test_an_entry_is_the_divergence_of_the_network_with_that_layer_realised(small, profile, layer, variant):
    # A whole run of the pipeline and of the simulation, without any cached value: `expand` and `join` have operations
    # before them that compute in 8 bits with them, `project` and `join` have residuals.
    variants = {node.name: variant if node.name == layer else FLOAT32 for node in small.network.layers}
    expected = losses_of(small, realise(small.network, small.weights, small.images, variants))
    np.testing.assert_allclose(profile.per_image(layer, variant), expected, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("recovery", [(), ("correct",), ("correct", "reconstruct")], ids=" ".join)
def test_choices_are_measured_under_the_steps_that_are_asked_for(small, recovery):
    # two variants that read the layer's input alike, one that does not
    choices = [INT2, Variant.parse("ternary"), Variant.parse("int2@u4"), Variant.parse("apb:kept=0.02")]
    menu = {"project": choices, "classifier": choices}
    profile = measure(small.network, small.weights, small.images, menu, recovery=recovery)
    for layer, variant in [(layer, v) for layer in menu for v in choices]:
        variants = {node.name: variant if node.name == layer else FLOAT32 for node in small.network.layers}
        expected = losses_of(
            small, realise(small.network, small.weights, small.images, variants, recoveries=recoveries(recovery))
        )
        np.testing.assert_allclose(profile.per_image(layer, variant), expected, rtol=2e-3, atol=1e-6)


def test_a_profile_under_other_steps_is_another_one(small):
    given = small.network, small.weights, small.images
    before, after = profile_hashes(*given), profile_hashes(*given, recovery=("correct", "reconstruct"))
    assert {name for name in before if before[name] != after[name]} == {"encodings"}


def test_little_memory_only_means_several_walks(small, profile, menu_of):
    # Layers are recovered on the first walk's images only, so the numbers are close, not equal.
    room = 16 * peak_bytes(Simulator(small.network, small.weights))
    menu = menu_of(small.network, FLOAT32, INT8, INT2)
    chunked = measure(small.network, small.weights, small.images, menu, batch=8, memory=room)
    assert chunked.images == len(small.images)
    for name in menu:
        assert chunked.loss(name, INT2) == pytest.approx(profile.loss(name, INT2), rel=0.5)


def test_the_task_loss_needs_labels_and_may_be_negative(small):
    menu = {"join": (INT2,)}
    labels = np.arange(len(small.images)) % 5
    found = measure(small.network, small.weights, small.images, menu, metric="task", labels=labels)
    assert found.metric == "task"
    assert found.per_image("join", INT2).min() < 0 < found.per_image("join", INT2).max()
    with pytest.raises(DataError, match="labels"):
        measure(small.network, small.weights, small.images, menu, metric="task")


def test_an_unknown_layer_is_named(small):
    with pytest.raises(UsageError, match="'bogus'"):
        measure(small.network, small.weights, small.images, {"bogus": (INT8,)})


def test_progress_counts_the_choices(small):
    seen = []
    menu = {"stem": (FLOAT32, INT8), "join": (INT8, INT2)}
    measure(small.network, small.weights, small.images, menu, progress=lambda *report: seen.append(report))
    assert [total for _, total, _ in seen] == [3] * len(seen)
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert seen[-1][0] == 3
    assert any("join as int2" in text for _, _, text in seen)


@pytest.mark.parametrize(
    ("package", "file"),
    [
        ("bitplan.profiles.estimators", "tempered.py"),
        ("bitplan.profiles", "metrics.py"),
        ("bitplan.profiles", "measure_link.py"),
    ],
)
def test_hashes_know_the_code_that_measures(small, monkeypatch, tmp_path, package, file):
    before = profile_hashes(small.network, small.weights, small.images)
    sources = tmp_path / "sources"
    shutil.copytree(str(files(package)), sources)
    monkeypatch.setattr("bitplan.profiles.measure_loss.files", lambda name: sources if name == package else files(name))
    assert profile_hashes(small.network, small.weights, small.images) == before
    with (sources / file).open("a") as changed:
        changed.write("# another one\n")
    after = profile_hashes(small.network, small.weights, small.images)
    assert {name for name in before if before[name] != after[name]} == {"encodings"}


def test_hashes_tell_apart_what_matters(small):
    base = profile_hashes(small.network, small.weights, small.images)
    other_images = profile_hashes(small.network, small.weights, small.images[1:])
    assert {name for name in base if base[name] != other_images[name]} == {"data"}
    weights = {**small.weights, "stem.bias": small.weights["stem.bias"] + 1}
    other_weights = profile_hashes(small.network, weights, small.images)
    assert {name for name in base if base[name] != other_weights[name]} == {"weights"}
    labelled = profile_hashes(small.network, small.weights, small.images, np.zeros(40, int))
    assert labelled["data"] != base["data"]


class TestReuse:
    """Entries that are known already are taken over, not measured again."""

    def test_known_entries_are_not_measured_again(self, small, profile):
        seen = []
        menu = {"stem": (INT8, INT2), "join": (INT2,)}
        again = measure(
            small.network, small.weights, small.images, menu, profile=profile, progress=lambda *r: seen.append(r)
        )
        assert not seen
        assert np.array_equal(again.per_image("stem", INT8), profile.per_image("stem", INT8))

    def test_a_smaller_profile_is_extended(self, small):
        first = measure(small.network, small.weights, small.images, {"stem": (INT8,)})
        both = measure(small.network, small.weights, small.images, {"join": (INT2,)}, profile=first)
        assert set(both.increases) == {("stem", INT8), ("join", INT2)}

    def test_a_profile_of_other_images_is_ignored(self, small, profile):
        found = measure(small.network, small.weights, small.images[:8], {"stem": (INT8,)}, profile=profile)
        assert set(found.increases) == {("stem", INT8)}
        assert found.images == 8


class TestCheckpoint:
    @pytest.mark.parametrize("walks", [1, 3])
    def test_an_interrupted_measurement_goes_on_with_the_same_result(self, small, tmp_path, walks, menu_of):
        menu = menu_of(small.network, INT8, BINARY)
        room = -(-40 // walks // 8) * 8 * peak_bytes(Simulator(small.network, small.weights))

        class Interrupted(Exception):
            pass

        def run(limit=10**6, checkpoint=tmp_path / "journal"):
            seen = []

            def report(done, total, _text):
                seen.append((done, total))
                if done >= limit:
                    raise Interrupted

            options = {"batch": 8, "memory": room, "checkpoint": checkpoint, "progress": report}
            return measure(small.network, small.weights, small.images, menu, **options), seen

        whole, seen = run(checkpoint=None)
        assert seen[0] == (0, 12 * walks)
        for limit in (1, 5, 12 * walks - 2):
            with pytest.raises(Interrupted):
                run(limit)
        resumed, seen = run()
        assert seen[0] == (12 * walks - 2, 12 * walks)
        assert same(resumed, whole)

    def test_a_killed_process_loses_one_choice_at_most(self, chain, tmp_path):
        def run(limit):
            return chain.run(KILLED, tmp_path / "journal", limit, tmp_path / "out")

        killed = run(7)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        with (tmp_path / "journal").open("ab") as torn:
            torn.write(b'{"name": "[0, \\"layer3')
        resumed = run(99)
        assert resumed.stdout.strip() == "7", resumed.stderr
        straight = measure(*chain.subject)
        found = LossProfile.load(tmp_path / "out")
        assert list(found.increases) == list(straight.increases)
        for choice, values in straight.increases.items():
            np.testing.assert_allclose(found.increases[choice], values, rtol=1e-4, atol=1e-7)

    def test_the_journal_of_another_measurement_is_started_anew(self, small, tmp_path):
        menu = {"stem": (INT8,)}
        measure(small.network, small.weights, small.images, menu, checkpoint=tmp_path / "journal")
        fewer = measure(small.network, small.weights, small.images[:8], menu, checkpoint=tmp_path / "journal")
        assert same(fewer, measure(small.network, small.weights, small.images[:8], menu))


class TestJournal:
    VALUES = np.array([1.5, -2.25, 3e-8], np.float32)

    def written(self, path, count=3):
        with Journal(path, "key") as journal:
            for index in range(count):
                journal.add(f"unit {index}", self.VALUES * index)
        return path.read_bytes()

    def test_records_come_back(self, tmp_path):
        self.written(tmp_path / "j")
        with Journal(tmp_path / "j", "key") as journal:
            assert list(journal.records) == ["unit 0", "unit 1", "unit 2"]
            assert np.array_equal(journal.records["unit 2"], self.VALUES * 2)

    def test_cut_off_anywhere_it_keeps_the_whole_records(self, tmp_path):
        path = tmp_path / "j"
        data = self.written(path)
        ends = [index + 1 for index, byte in enumerate(data) if byte == ord("\n")]
        for cut in range(0, len(data), 7):
            path.write_bytes(data[:cut])
            whole = max(0, sum(end <= cut for end in ends) - 1)
            with Journal(path, "key") as journal:
                assert len(journal.records) == whole
                journal.add("next", self.VALUES)
            with Journal(path, "key") as journal:
                assert len(journal.records) == whole + 1

    def test_a_damaged_record_ends_it(self, tmp_path):
        data = self.written(tmp_path / "j")
        lines = data.splitlines(keepends=True)
        lines[2] = lines[2].replace(b'"crc": ', b'"crc": 1')
        (tmp_path / "j").write_bytes(b"".join(lines))
        with Journal(tmp_path / "j", "key") as journal:
            assert list(journal.records) == ["unit 0"]

    def test_another_key_starts_anew(self, tmp_path):
        self.written(tmp_path / "j")
        with Journal(tmp_path / "j", "other") as journal:
            assert not journal.records
