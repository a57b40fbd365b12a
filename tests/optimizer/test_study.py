"""Studies with an objective that costs nothing: reproducible, killed, shared, and read again."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bitplan.errors import BitplanError, DataError, InfeasibleError, UsageError

optuna = pytest.importorskip("optuna", reason="studies need optuna: pip install 'bitplan[study]'")

from bitplan.optimizer.study import (
    Choices,
    Course,
    Evaluated,
    Knob,
    Place,
    Plan,
    Range,
    Workers,
    begun,
    loaded_study,
    open_storage,
    parse_domain,
)
from bitplan.optimizer.study.rows import Row, best_rows, rows_of, write_rows
from bitplan.optimizer.study.storage import quiet

KNOBS = (Knob.of("x", Range(-1, 1), 0.9), Knob.of("kind", Choices(("a", "b")), "a"), Knob.of("n", Range(1, 8, True), 3))


def evaluate(settings, watch):
    """Least at x = 0.3 and kind a; `bytes` may be at most 0.8."""
    loss = (settings["x"] - 0.3) ** 2 + (settings["kind"] == "b")
    watch.loss(0, loss + 1)
    size = abs(settings["x"])
    return Evaluated({"loss": loss, "bytes": size}, {"bytes": size - 0.8}, {"note": settings["n"]})


def course(folder, storage="study.log", objectives=("loss",), sampler="tpe", evaluate=evaluate, knobs=KNOBS, seed=0):
    place = open_storage(str(folder / storage))
    workers = Workers(folder / "workers")
    plan = Plan("s", knobs, objectives, sampler, "median" if len(objectives) == 1 else "none", seed)
    try:
        study = begun(plan, place, workers)
    except BaseException:
        workers.close()
        raise
    return Course(study, place.storage, knobs, objectives, evaluate, workers)


def told(course):
    return [
        (t.number, t.state.name, t.params, t.values, t.constraints, t.intermediate_values)
        for t in course.study.get_trials()
    ]


def ran(folder, trials=14, **how):
    made = course(folder, **how)
    assert made.run(trials)
    made.workers.close()
    return made


WORKER = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_study as t

def dying(settings, watch):
    if watch.number == {number}:
        os.kill(os.getpid(), signal.SIGKILL)
    return t.evaluate(settings, watch)

t.course(Path({folder!r}), {storage!r}, {objectives!r}, {sampler!r}, dying).run({trials})
"""


def killed(folder, number, storage="study.log", objectives=("loss",), sampler="tpe", trials=14):
    """A worker that is killed in the middle of a trial."""
    text = WORKER.format(
        tests=str(Path(__file__).parent), folder=str(folder), number=number, storage=storage, objectives=objectives,
        sampler=sampler, trials=trials,
    )  # fmt: skip
    return subprocess.run([sys.executable, "-c", text], check=False, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("storage", "objectives", "sampler", "trials"),
    [
        ("study.db", ("loss",), "random", 4),
        ("study.log", ("loss",), "tpe", 14),
        ("study.log", ("loss", "bytes"), "nsga2", 6),
    ],
)
def test_a_study_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path, storage, objectives, sampler, trials):
    how = {"storage": storage, "objectives": objectives, "sampler": sampler, "trials": trials}
    expected = told(ran(tmp_path / "whole", **how))
    process = killed(tmp_path / "killed", trials - 2, **how)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert told(ran(tmp_path / "killed", **how)) == expected
    assert [number for number, *_ in expected] == list(range(trials))


def test_a_worker_finishes_what_another_one_was_killed_in(tmp_path):
    folder = tmp_path / "shared"
    other = killed(folder, 5, trials=40)
    assert other.returncode == -signal.SIGKILL, other.stderr
    found = told(ran(folder, trials=40))
    assert len(found) == 40
    assert {state for _, state, *_ in found} <= {"COMPLETE", "PRUNED"}


def test_two_workers_share_the_trials_to_the_number(tmp_path):
    """The second one begins in the middle of the first one's trial, and waits for none of them to be counted twice."""
    seen = []

    def nested(settings, watch):
        if not seen:
            seen.append(watch.number)
            second = course(tmp_path)
            assert second.workers.name != first.workers.name
            second.carry_on = lambda: len(seen) < 2
            second.evaluate = lambda s, w: (seen.append(w.number), evaluate(s, w))[1]
            second.run(6)
            second.workers.close()
        return evaluate(settings, watch)

    first = course(tmp_path, evaluate=nested)
    assert first.run(6)
    first.workers.close()
    assert seen == [0, 1]
    assert [number for number, *_ in told(first)] == list(range(6))


def test_a_trial_whose_worker_was_lost_elsewhere_is_repeated_as_another_one(tmp_path):
    """It is known by the heartbeats of the database."""
    made = course(tmp_path, "study.db", sampler="random")
    with quiet():
        lost = made.study.ask()
    lost.set_user_attr("worker", "elsewhere/somebody")
    made.storage.record_heartbeat(lost._trial_id)
    made.storage.grace_period = 1
    time.sleep(2.1)
    assert made.run(2)
    made.workers.close()
    rows = rows_of(made.study, ("loss",))
    assert [row.state for row in rows] == ["fail", "complete", "complete"]
    assert rows[1].planner and rows[1].settings["x"] == 0.9
    assert "worker was lost" in rows[0].reason


def test_an_interrupted_trial_is_repeated_under_its_number(tmp_path):
    expected = told(ran(tmp_path / "whole"))

    def interrupted(settings, watch):
        if watch.number == 4:
            raise KeyboardInterrupt
        return evaluate(settings, watch)

    made = course(tmp_path / "other", evaluate=interrupted)
    with pytest.raises(KeyboardInterrupt):
        made.run(14)
    made.workers.close()
    assert told(ran(tmp_path / "other")) == expected


def test_the_first_trial_is_the_planners_and_other_seeds_are_other_studies(tmp_path):
    found = told(ran(tmp_path / "a", 6))
    assert found[0][2] == {"x": 0.9, "kind": "a", "n": 3}
    other = told(ran(tmp_path / "b", 6, seed=1))
    assert other[0] == found[0]
    assert [params for _, _, params, *_ in other[1:]] != [params for _, _, params, *_ in found[1:]]


def test_a_failure_of_one_trial_is_kept_with_its_reason_and_ends_nothing(tmp_path):
    def failing(settings, watch):
        if watch.number == 1:
            raise DataError("no images")
        if watch.number == 2:
            limits = {"bytes": {"asked": 10, "smallest": 15}, "latency": {"asked": 1.0, "smallest": None}}
            raise InfeasibleError("too small", {"conflict": ["bytes", "latency"], "limits": limits})
        return evaluate(settings, watch)

    made = ran(tmp_path, 5, evaluate=failing)
    rows = rows_of(made.study, ("loss",))
    assert [row.state for row in rows[:3]] == ["complete", "fail", "pruned"]
    assert (rows[1].reason, rows[2].reason) == ("no images", "too small")
    assert rows[2].constraints == {"bytes": 0.5, "latency": 1.0}
    assert len(rows) == 5


def test_what_the_planner_fails_with_is_raised_and_tried_again(tmp_path):
    def broken(settings, watch):
        raise DataError("no images")

    made = course(tmp_path, evaluate=broken)
    with pytest.raises(DataError, match="no images"):
        made.run(3)
    made.workers.close()
    found = told(ran(tmp_path, 3))
    assert [state for _, state, *_ in found] == ["COMPLETE"] * 3


def test_a_pruner_ends_trials_but_never_the_planners(tmp_path):
    found = told(ran(tmp_path, 25, sampler="random"))
    states = [state for _, state, *_ in found]
    assert "PRUNED" in states
    assert states[0] == "COMPLETE"


def test_time_that_has_run_out_ends_a_study_before_the_next_trial(tmp_path):
    made = course(tmp_path)
    assert not made.run(5, seconds=0)
    made.workers.close()
    assert [state for _, state, *_ in told(made)] == ["WAITING"]


def test_a_grid_goes_through_all_its_points(tmp_path):
    knobs = (Knob.of("x", Choices((0.1, 0.2, 0.9)), 0.9), KNOBS[1], Knob.of("n", Choices((3,)), 3))
    plan = Plan("s", knobs, ("loss",), "grid")
    assert plan.points == 7
    found = told(ran(tmp_path, 7, sampler="grid", knobs=knobs))
    assert len({(params["x"], params["kind"]) for _, _, params, *_ in found}) == 6  # and the planner's, once more
    with pytest.raises(UsageError, match="knob x is a range"):
        course(tmp_path / "range", sampler="grid")


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ({"sampler": "tpee"}, "did you mean 'tpe'"),
        ({"seed": 7}, "other seed"),
        ({"objectives": ("bytes",)}, "other objectives"),
        ({"knobs": KNOBS[:2]}, "other knobs"),
    ],
)
def test_a_study_goes_on_only_as_what_it_was(tmp_path, how, complaint):
    ran(tmp_path, 1)
    with pytest.raises(UsageError, match=complaint):
        course(tmp_path, **how)


@pytest.mark.parametrize("storage", ["study.txt", "nothing://x", "mysql://nowhere/x", "sqlite:////proc/no/study.db"])
def test_storages_that_cannot_be_opened_say_what_can(storage):
    with pytest.raises((BitplanError, OSError)) as raised:
        open_storage(storage)
    assert "storage" in str(raised.value) or "/proc/no" in str(raised.value)


@pytest.mark.parametrize("storage", ["a.db", "sqlite:///b/a.odd", "a.log", "journal:a.odd"])
def test_what_is_recorded_of_a_storage_opens_it_from_any_folder(tmp_path, monkeypatch, storage):
    monkeypatch.chdir(tmp_path)
    place = open_storage(storage)
    optuna.create_study(study_name="s", storage=place.storage)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    again = open_storage(place.recorded, create=False)
    assert (again.file, again.url) == (place.file, place.url)
    assert loaded_study(again, "s").study_name == "s"


@pytest.mark.parametrize("storage", ["no/a.db", "sqlite:///no/a.db", "no/a.log", "journal:no/a"])
def test_a_storage_that_is_only_read_is_not_created(tmp_path, monkeypatch, storage):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BitplanError, match=r"no/a\S* does not exist"):
        open_storage(storage, create=False)
    assert not list(tmp_path.iterdir())


def test_a_database_of_something_else_that_is_only_read_is_left_as_it_is(tmp_path):
    (tmp_path / "a.db").touch()
    with pytest.raises(BitplanError, match="cannot be opened"):
        open_storage(str(tmp_path / "a.db"), create=False)
    assert (tmp_path / "a.db").stat().st_size == 0


def test_passwords_of_databases_are_not_shown():
    place = Place(None, "mysql://me:secret@host/x", None)
    assert "secret" not in place.shown
    with pytest.raises(UsageError, match="--storage"):
        open_storage(place.shown)


def test_a_sampler_of_the_users_own_is_made_from_a_seed(tmp_path):
    assert len(told(ran(tmp_path, 2, sampler="optuna.samplers:RandomSampler"))) == 2
    for name, complaint in (("builtins:int", "must return an optuna sampler"), ("math:exp", "raised OverflowError")):
        with pytest.raises(UsageError, match=complaint):
            course(tmp_path / "other", sampler=name, seed=1000)


def test_a_study_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    ran(tmp_path, 1)
    with pytest.raises(UsageError, match="its studies: s"):
        loaded_study(open_storage(str(tmp_path / "study.log")), "other")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3,5,3", Choices((3, 5))),
        ("1..8", Range(1, 8, True)),
        ("1..9:4", Range(1, 9, True, 4)),
        ("1..64:log", Range(1, 64, True, log=True)),
    ],
)
def test_domains_are_read(text, expected):
    assert parse_domain("n", text, int) == expected


@pytest.mark.parametrize("text", ["", "8..1", "0..8:log", "1..8:0.5", "1..8:x"])
def test_wrong_domains_name_the_knob(text):
    with pytest.raises(UsageError, match="knob n"):
        parse_domain("n", text, int)


def test_a_domain_includes_what_the_planner_uses():
    assert Knob.of("n", Choices((1, 2)), 3).domain == Choices((3, 1, 2))
    assert Knob.of("n", Range(1, 4, True), 8).domain == Range(1, 8, True)
    assert Knob.of("n", Range(2, 8, True, 2), 9).domain == Range(2, 9, True)


def row(number, loss, size, state="complete", over=-1.0):
    return Row(number, state, number == 0, {"loss": loss, "bytes": size}, {"bytes": over}, {"kind": "a", "x": 0.5})


def test_the_front_is_what_no_feasible_trial_dominates():
    rows = [row(0, 2, 2), row(1, 1, 3), row(2, 3, 3), row(3, 0, 0, over=0.1), row(4, 2, 2), row(5, 0, 0, "pruned")]
    assert [found.number for found in best_rows(rows)] == [1, 0]
    alone = [Row(n, "complete", False, {"loss": loss}, {}, {}) for n, loss in enumerate([2.0, 1.0, 1.0])]
    assert [found.number for found in best_rows(alone)] == [1]


def test_trials_are_written_as_csv_json_and_arrow(tmp_path):
    import csv
    import json

    import pyarrow as pa

    rows = [row(0, 2.5, 2), Row(1, "pruned", False, {}, {}, {"kind": "b", "x": 3}, {"note": [1]}, "worse")]
    for ending in ("csv", "json", "arrow"):
        write_rows(tmp_path / f"trials.{ending}", rows, ("loss", "bytes"))
    with (tmp_path / "trials.csv").open() as file:
        first, second = csv.DictReader(file)
    assert (first["loss"], first["feasible"], second["loss"], second["knob:kind"]) == ("2.5", "True", "", "b")
    assert [found["reason"] for found in json.loads((tmp_path / "trials.json").read_text())] == [None, "worse"]
    table = pa.ipc.open_file(tmp_path / "trials.arrow").read_all()
    assert table["loss"].to_pylist() == [2.5, None]
    assert table["limit:bytes"].to_pylist() == [-1.0, None]
    with pytest.raises(UsageError, match=r"\.csv"):
        write_rows(tmp_path / "trials.xlsx", rows, ("loss",))
