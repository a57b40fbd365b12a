"""Measuring with several workers: the same numbers to the last bit, whoever computes and whoever dies."""

from __future__ import annotations

import importlib.util
import pickle
import runpy
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from bitplan.config import Config
from bitplan.config_values import BACKENDS
from bitplan.errors import BitplanError, UsageError
from bitplan.policies.realise.front import peak_bytes
from bitplan.profiles.loss import LossProfile
from bitplan.profiles.measure_link import calibrated
from bitplan.profiles.measure_loss import measure
from bitplan.profiles.workers import Workers, remote, started
from bitplan.profiles.workers.dispatch import Resubmitting, _checked
from bitplan.profiles.workers.pools import POOLS
from bitplan.simulate import Simulator
from bitplan.variant import Variant

pytest.importorskip("torch")

ESTIMATORS = ("separable", "tempered", "gram", "clado")

# A program of its own: spawned workers import it, and killed parents are not this process.
PROGRAM = '''
import os, signal, sys, time
from pathlib import Path
import numpy as np
from bitplan.network import RELU, Conv2d, Input, Linear, Mean, Network, Node
from bitplan.variant import Variant

nodes = [Node("x", Input(), (), (3, 24, 24))]
for i in range(4):
    conv = Conv2d((3, 3), (1, 1), (1, 1, 1, 1), activation=RELU)
    nodes.append(Node(f"conv{i}", conv, (f"conv{i - 1}" if i else "x",), (16, 24, 24)))
nodes += [Node("mean", Mean(), ("conv3",), (16,)), Node("classifier", Linear(), ("mean",), (5,))]
network = Network(tuple(nodes), ("classifier",))
random = np.random.default_rng(0)
weights = {}
for i in range(4):
    weights[f"conv{i}.weight"] = random.normal(0, 0.15, (16, 16 if i else 3, 3, 3)).astype(np.float32)
    weights[f"conv{i}.bias"] = random.normal(0, 0.1, 16).astype(np.float32)
weights |= {"classifier.weight": random.normal(size=(5, 16)).astype(np.float32), "classifier.bias": np.zeros(5, np.float32)}
images = random.normal(size=(64, 3, 24, 24)).astype(np.float32)
menu = {node.name: tuple(Variant(name) for name in ("int8", "int4", "int2", "binary")) for node in network.layers}
options = {"batch": 16}

MARKS = {"loky": "popen_loky", "ray": "ray::_called", "dask": "spawn_main"}


def workers_of(backend):
    """The processes below this one that evaluate units."""
    children, found = {}, []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append((int(entry.name), (entry / "cmdline").read_bytes().decode()))
            except OSError:
                pass
    below = list(children.get(os.getpid(), []))
    for pid, line in below:
        below += children.get(pid, [])
        if MARKS[backend] in line:
            found.append(pid)
    return found


def main(backend, estimator, folder, victim):
    from bitplan.profiles.measure_loss import measure
    from bitplan.profiles.workers import Workers

    seen = []

    def report(done, total, text):
        seen.append(done)
        if victim and done >= total // 3 and text not in ("", "activation ranges"):
            if victim == "parent":
                Path(folder, "orphans").write_text(" ".join(map(str, workers_of(backend))))
                os.kill(os.getpid(), signal.SIGKILL)
            elif not Path(folder, "killed").exists():
                until = time.monotonic() + 10
                while not (pids := workers_of(backend)):
                    assert time.monotonic() < until, "no worker is there"
                os.kill(pids[0], signal.SIGKILL)
                Path(folder, "killed").write_text(str(pids[0]))

    crew = Workers(2, backend, say=lambda text: print(text, flush=True))
    profile = measure(
        network, weights, images, menu, estimator=estimator, checkpoint=Path(folder, "journal"), progress=report,
        workers=crew, **options,
    )
    profile.save(Path(folder, "out.arrow"))
    print("began at", seen[0], "of", len(profile.increases))


if __name__ == "__main__":
    main(*sys.argv[1:])
'''


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("program") / "job.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture(scope="module")
def job(program):
    return runpy.run_path(str(program), run_name="job")


@pytest.fixture(scope="module")
def straight(job):
    """In this process, by estimator."""
    given = [job[name] for name in ("network", "weights", "images", "menu")]
    return {name: measure(*given, estimator=name, **job["options"]) for name in ESTIMATORS}


@pytest.fixture(scope="module")
def crew():
    with started(Workers(2)) as workers:
        yield workers


def stored(profile, path):
    """As a file holds it, where matrices are float32."""
    profile.save(path)
    return LossProfile.load(path)


def run(program, folder, backend, estimator, victim=""):
    # Ray's workers import from the current folder first, where this repository has a folder bitplan that is not all of it.
    command = [sys.executable, "-W", "ignore", str(program), backend, estimator, str(folder), victim]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=folder)


def assert_same(found: LossProfile, expected: LossProfile) -> None:
    assert list(found.increases) == list(expected.increases)
    for choice, values in expected.increases.items():
        assert np.array_equal(found.increases[choice], values), choice
    for name in ("pairs", "pair_errors"):
        assert (getattr(found, name) is None) == (getattr(expected, name) is None)
        if getattr(expected, name) is not None:
            assert np.array_equal(getattr(found, name), getattr(expected, name)), name


@pytest.mark.parametrize("estimator", ["separable", "gram", "clado"])
def test_two_processes_find_the_same_bits(job, straight, crew, estimator):
    given = [job[name] for name in ("network", "weights", "images", "menu")]
    seen = []
    found = measure(
        *given,
        estimator=estimator,
        workers=crew,
        progress=lambda *report: seen.append(report),
        **job["options"],
    )
    assert_same(found, straight[estimator])
    assert seen[0][0] == 0 and seen[-1][0] == seen[-1][1]


def test_interrupted_they_go_on_in_one_process_or_two(job, straight, crew, tmp_path):
    given = [job[name] for name in ("network", "weights", "images", "menu")]
    options = {"estimator": "tempered", "checkpoint": tmp_path / "journal", **job["options"]}

    class Interrupted(Exception):
        pass

    def report(done, total, text):
        if done == 7:
            raise Interrupted

    with pytest.raises(Interrupted):
        measure(*given, workers=crew, progress=report, **options)
    seen = []
    assert_same(measure(*given, progress=lambda *r: seen.append(r), **options), straight["tempered"])
    assert seen[0][0] == 7


def test_so_they_do_where_images_come_in_chunks(job, crew):
    given = [job[name] for name in ("network", "weights", "images")]
    menu = {name: (Variant("int4"), Variant("binary")) for name in job["menu"]}
    room = 32 * peak_bytes(Simulator(given[0], given[1]))
    options = {"estimator": "clado", "batch": 16, "memory": room}
    assert_same(measure(*given, menu, workers=crew, **options), measure(*given, menu, **options))


def test_so_do_whole_policies(job, straight, crew):
    given = [job[name] for name in ("network", "weights", "images", "menu")]
    here, there = (
        calibrated(*given, straight["tempered"], policies=4, workers=workers) for workers in (Workers(), crew)
    )
    assert np.array_equal(here.losses, there.losses)
    assert here.profile.link == there.profile.link


class TestKilled:
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_a_worker_that_dies_changes_nothing(self, program, straight, tmp_path, backend):
        needed = {"loky": "joblib", "ray": "ray", "dask": "distributed"}[backend]
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed: pip install 'bitplan[cluster]'")
        estimator = "gram"
        ended = run(program, tmp_path, backend, estimator, "worker")
        assert ended.returncode == 0, ended.stderr
        assert (tmp_path / "killed").exists()
        assert "a worker died; what it had begun is given to another one" in ended.stdout
        assert_same(LossProfile.load(tmp_path / "out.arrow"), stored(straight[estimator], tmp_path / "straight.arrow"))

    def test_a_parent_that_dies_is_gone_on_from_and_its_workers_end(self, program, job, straight, tmp_path):
        killed = run(program, tmp_path, "loky", "clado", "parent")
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        orphans = [Path("/proc", pid) for pid in (tmp_path / "orphans").read_text().split()]
        assert len(orphans) == 2
        done = len((tmp_path / "journal").read_bytes().splitlines()) - 1
        given = [job[name] for name in ("network", "weights", "images", "menu")]
        seen = []
        options = {"estimator": "clado", "checkpoint": tmp_path / "journal", **job["options"]}
        assert_same(measure(*given, progress=lambda *report: seen.append(report), **options), straight["clado"])
        assert seen[0][0] == done
        until = time.monotonic() + 20
        while any(path.exists() for path in orphans):
            assert time.monotonic() < until, "workers outlive their parent"
            time.sleep(0.1)


@dataclass(frozen=True)
class Number:
    number: int

    @property
    def name(self) -> str:
        return str(self.number)

    title = name


class Squares:
    def evaluate(self, unit):
        return np.array([unit.number**2], np.float32)


class Refusing:
    def evaluate(self, unit):
        raise UsageError("layer 'a' cannot be b")


class Sent:
    """A delivery of bytes that are here."""

    def __init__(self, content):
        self.content = content

    def fetch(self):
        return self.content


class TestAnswers:
    """What a worker sends is taken only where it belongs to the job and its unit."""

    CONTENT = pickle.dumps(Squares())
    UNITS = (Number(2), Number(3))

    def answer(self, content=CONTENT):
        remote.forget()
        return remote.evaluate(remote.job_digest(content), Sent(content), self.UNITS)

    def test_an_answer_is_the_values_of_the_units(self):
        found = list(_checked(remote.job_digest(self.CONTENT), self.UNITS, self.answer()))
        assert [(unit.number, values.tolist()) for unit, values in found] == [(2, [4.0]), (3, [9.0])]

    def test_values_of_another_job_unit_or_number_are_refused(self):
        job, answer = remote.job_digest(self.CONTENT), self.answer()
        changed = replace(answer, values=[(stated, values + 1) for stated, values in answer.values])
        for job_asked, units, given in (
            (remote.job_digest(b"another"), self.UNITS, answer),
            (job, self.UNITS[::-1], answer),
            (job, self.UNITS, changed),
        ):
            with pytest.raises(BitplanError, match="does not belong to"):
                list(_checked(job_asked, units, given))

    def test_other_code_is_refused(self):
        answer = replace(self.answer(), code="torch 1.0")
        with pytest.raises(BitplanError, match=r"other code \(torch 1.0\).*install the same versions"):
            list(_checked(remote.job_digest(self.CONTENT), self.UNITS, answer))

    def test_what_the_work_raises_is_raised_here(self):
        content = pickle.dumps(Refusing())
        with pytest.raises(UsageError, match="layer 'a' cannot be b"):
            list(_checked(remote.job_digest(content), self.UNITS, self.answer(content)))

    def test_a_delivery_of_another_job_is_not_worked_on(self):
        remote.forget()
        answer = remote.evaluate(remote.job_digest(self.CONTENT), Sent(b"another"), self.UNITS)
        assert "another job" in str(answer.error)


class Mortal:
    """A pool whose worker dies of the first `deaths` calls."""

    size = in_flight = 1
    deaths = (ChildProcessError,)

    def __init__(self, count):
        self.left = count

    def submit(self, call):
        future = Future()
        if self.left:
            self.left -= 1
            future.set_exception(ChildProcessError("killed"))
        else:
            future.set_result(call())
        return future


def test_work_that_kills_every_worker_is_given_up_with_a_remedy():
    said = []
    assert Resubmitting(Mortal(2), said.append).submit(lambda: 7).result() == 7
    assert len(said) == 2
    with pytest.raises(BitplanError, match=r"3 workers died of the same work.*fewer --jobs"):
        Resubmitting(Mortal(3), said.append).submit(lambda: 7).result()


def test_the_backends_that_can_be_named_are_those_that_exist():
    assert set(POOLS) == set(BACKENDS)


@pytest.mark.parametrize("name", ["ray", "dask"])
def test_a_backend_that_is_not_installed_says_how_to_install_it(monkeypatch, name):
    monkeypatch.setattr("bitplan.user_code.importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'bitplan\[cluster\]'"), POOLS[name](Workers(2, name)):
        pass


def test_an_address_needs_a_backend_that_has_one():
    for wrong in (lambda: Workers(2, cluster="a:1"), lambda: Config(jobs=2, cluster="a:1")):
        with pytest.raises(UsageError, match=r"name .*ray or dask"):
            wrong()
