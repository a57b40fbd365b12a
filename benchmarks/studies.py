"""Studies of the embedded example: killed and called again, by two workers of which one is killed, and in optuna-dashboard.

    python benchmarks/studies.py [--trials 40] [--kills 5] [--seed 0] [--json FILE]

One worker on a recorded device profile is run undisturbed, and killed at random moments and called again: all trials have to
be the same, numbers, settings, values, intermediate losses and policies. Then two workers share a study and one is killed in
the middle of a trial: the other has to complete all trials, with a best one that is no worse than the planner's own solution.
optuna-dashboard, as it is, has to open the page of the study and to list its trials. Encodings and recovery are cheap ones.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from against_peers import machine_folder
from optuna.trial import TrialState

from bitplan.atomic_file import write_atomically
from bitplan.errors import BitplanError
from bitplan.optimizer.study import loaded_study, open_storage
from bitplan.policies.policy_file import policy_hash, read_policy
from bitplan.studies.files import StudyFile

ROOT = Path(__file__).resolve().parents[1]
MENU = ("--encodings", "int8,int4,int3,int2,ternary,binary,apb", "--recovery", "fast", "--loss-size", "128")
KNOBS = (
    "encodings=menu,integers,low-bit,int8+int4+int2",
    "kept=menu,0.02,0.04",
    "estimator=tempered,separable,hessian-trace",
    "recovery=fast,none",
    "calibration_size=64..384:64",
)
POLL = 0.05
DONE = (TrialState.COMPLETE, TrialState.PRUNED)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from bitplan.cli import main; main()", *arguments]


def start(folder: Path, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """In `folder`, with a cache of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"BITPLAN_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command(*arguments), cwd=folder, env=environment, stdout=log, stderr=log)


def to_the_end(folder: Path, arguments: Sequence[str]) -> float:
    """Seconds. Raises SystemExit where the command fails."""
    begin = time.monotonic()
    if start(folder, arguments).wait():
        raise SystemExit(f"{' '.join(arguments)} failed in {folder}: {(folder / 'log').read_text()[-2000:]}")
    return time.monotonic() - begin


def trials(folder: Path) -> list[Any]:
    """Of the study in this folder; none where there is no study yet."""
    place = folder / "out" / "study"
    try:
        file = StudyFile.load(place)
        study = loaded_study(open_storage(file.storage_in(place), create=False), file.name)
        found: list[Any] = study.get_trials(deepcopy=False)
        return found
    except BitplanError:  # it is being made
        return []


def told(folder: Path) -> list[Any]:
    """All that has to be the same of every trial."""
    found = []
    for trial in trials(folder):
        policy = folder / "out" / "study" / "trials" / f"{trial.number:04d}" / "policy.json"
        decision = policy_hash(read_policy(policy)).hex() if policy.exists() else None
        found.append(
            [
                trial.number,
                trial.state.name,
                trial.params,
                trial.values,
                trial.constraints,
                trial.intermediate_values,
                decision,
            ]
        )
    return found


def killed(folder: Path, arguments: Sequence[str], kills: int, total: float, seed: int) -> int:
    """How many kills came before the end; then it is run to the end."""
    random, happened = np.random.default_rng(seed), 0
    for _ in range(kills):
        process = start(folder, arguments)
        try:
            process.wait(timeout=float(random.uniform(0.1, 1.0)) * 2 * total / (kills + 1))
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            happened += process.wait() == -signal.SIGKILL
    to_the_end(folder, arguments)
    return happened


def one_worker(place: Path, arguments: Sequence[str], kills: int, seed: int) -> dict[str, Any]:
    seconds = to_the_end(place / "undisturbed", arguments)
    happened = killed(place / "killed", arguments, kills, seconds, seed)
    expected, found = told(place / "undisturbed"), told(place / "killed")
    return {
        "trials": len(expected),
        "seconds_undisturbed": seconds,
        "kills": happened,
        "same": expected == found,
        "different": [a for a, b in zip(expected, found, strict=False) if a != b][:3],
    }


def two_workers(place: Path, arguments: Sequence[str], wanted: int) -> dict[str, Any]:
    folder, begin = place / "two", time.monotonic()
    first = start(folder, arguments)
    while not trials(folder):
        time.sleep(POLL)
    second = start(folder, arguments)
    lost = None
    while lost is None:  # until the second is in the middle of a trial
        if first.poll() is not None:
            raise SystemExit(f"the first worker ended too early: {(folder / 'log').read_text()[-2000:]}")
        found = trials(folder)
        workers = {trial.user_attrs.get("worker") for trial in found} - {None}
        mine = found[0].user_attrs.get("worker")
        running = [t for t in found if t.state == TrialState.RUNNING and t.user_attrs.get("worker") not in (None, mine)]
        if len(workers) == 2 and running and sum(t.state in DONE for t in found) >= wanted // 4:
            second.send_signal(signal.SIGKILL)
            second.wait()
            lost = running[0].number
        time.sleep(POLL)
    if first.wait():
        raise SystemExit(f"the first worker failed: {(folder / 'log').read_text()[-2000:]}")
    found = trials(folder)
    values = {t.number: t.value for t in found if t.state == TrialState.COMPLETE and max(t.constraints.values()) <= 0}
    return {
        "seconds": time.monotonic() - begin,
        "finished": sum(trial.state in DONE for trial in found),
        "left_over": sum(trial.state not in DONE for trial in found),
        "lost_trial": lost,
        "lost_trial_ended": found[lost].state.name,
        "planner": values.get(0),
        "best": min(values.values()),
    }


def dashboard(folder: Path) -> dict[str, Any]:
    """What optuna-dashboard answers on the study."""
    place = folder / "out" / "study"
    url = open_storage(StudyFile.load(place).storage_in(place), create=False).url
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = shutil.which("optuna-dashboard") or str(Path(sys.executable).with_name("optuna-dashboard"))
    server = subprocess.Popen(
        [program, url, "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(200):
            try:
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}/dashboard", timeout=10)
                break
            except OSError:
                time.sleep(POLL * 2)
        studies = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies", timeout=30))
        identity = studies["study_summaries"][0]["study_id"]
        study = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies/{identity}", timeout=30))
        return {"page": page.status, "trials": len(study["trials"])}
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/<machine>/studies.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="studies-") as temporary:
        place = Path(temporary)
        to_the_end(place, ["profile", *MENU, "-o", "recorded"])
        study = ["study", *MENU, "--trials", str(arguments.trials), "--seed", str(arguments.seed), "-o", "out"]
        study += ["--device", str(place / "recorded" / "device.arrow")]
        study += [part for knob in KNOBS for part in ("--knob", knob)]
        print(f"optimize {' '.join(study)}", flush=True)
        found: dict[str, Any] = {"command": study}
        found["one worker"] = one_worker(place, study, arguments.kills, arguments.seed)
        print(f"one worker: {json.dumps(found['one worker'])}", flush=True)
        found["two workers"] = two_workers(place, study, arguments.trials)
        print(f"two workers: {json.dumps(found['two workers'])}", flush=True)
        found["dashboard"] = dashboard(place / "two")
        print(f"optuna-dashboard: {json.dumps(found['dashboard'])}", flush=True)
    write_atomically(arguments.json or machine_folder() / "studies.json", json.dumps(found, indent=1).encode())
    two = found["two workers"]
    kept = two["finished"] == arguments.trials and two["left_over"] == 0 and two["best"] <= two["planner"]
    opened = found["dashboard"] == {"page": 200, "trials": arguments.trials}
    if not (found["one worker"]["same"] and found["one worker"]["kills"] and kept and opened):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
