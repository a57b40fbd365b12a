"""kill -9 at random moments of long commands: what a rerun makes of what was finished.

    python benchmarks/kills.py [--network example|resnet20] [--kills 10] [--seed 0] [--scenarios NAME ...] [--loss-size N]

Every scenario runs once undisturbed and once killed: moments are drawn over all of its work units (steps timed, records of
journals, epochs), the command is killed a random fraction of a second behind each of them and started again, to the end. The result
has to be the same: profiles, artifacts and trained weights to the last byte, frontiers in all but their seconds; of latencies, which are measured, the set
of steps, and those that were finished before a kill in the values that they had. Units that are recorded twice are
counted; those under way at a kill are lost besides, at most one for each worker (16 for pairs of clado).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from against_peers import machine_folder
from safetensors import safe_open

from bitplan.atomic_file import write_atomically
from bitplan.errors import FileFormatError
from bitplan.optimizer.frontier.file import read_frontier, summary
from bitplan.profiles.device import DeviceProfile
from bitplan.profiles.estimators.clado import BLOCK

ROOT = Path(__file__).resolve().parents[1]
SUBJECTS = {
    "example": (),
    "resnet20": ("--model", "benchmarks.networks:resnet20", "--data", "benchmarks.networks:cifar10"),
}
POLL = 0.02
"""Seconds between two looks at the files."""
DELAY = 0.5
"""Seconds, at most, between a work unit's end and the kill."""
BAR = 0.05
"""Of all work, what one kill may repeat."""


@dataclass(frozen=True)
class Scenario:
    """A command that is killed; `in_flight`: units that a kill loses, at most."""

    name: str
    arguments: tuple[str, ...]
    in_flight: int = 1


PROFILE, FRONTIER, FINETUNE = ("profile", "-o", "out"), "frontier", "realise --finetune"
TRAINING = ("--finetune", "30epochs", "--finetune-option", "patience=0")
SCENARIOS = (
    Scenario("profile", PROFILE),
    Scenario("profile gram", (*PROFILE, "--loss-profile", "gram")),
    Scenario("profile --jobs 2", (*PROFILE, "--jobs", "2"), 2),
    Scenario("profile clado --jobs 2", (*PROFILE, "--loss-profile", "clado", "--jobs", "2"), 2 * BLOCK),
    Scenario(FRONTIER, ("frontier", "stored", "--points", "12", "--time-limit", "600")),
    Scenario(FINETUNE, ("realise", "stored/policy.json", *TRAINING, "-o", "out")),
)
PREPARED = {FRONTIER: ("profile",), FINETUNE: ("--budget", "60kB", "--dry-run")}
"""What leaves in `stored` that a scenario begins with."""


@dataclass
class Run:
    """One folder with a cache of its own, in which a scenario is run, killed and run again. `recorded`: work units that
    all runs together have written."""

    folder: Path
    command: Sequence[str]
    recorded: int = 0
    _times: dict[Path, int] = field(default_factory=dict)
    _counts: dict[Path, int] = field(default_factory=dict)
    _steps: Mapping[Any, Any] = field(default_factory=dict)

    def start(self) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            environment = os.environ | {"BITPLAN_CACHE": str(self.folder / "cache"), "PYTHONPATH": str(ROOT)}
            return subprocess.Popen(
                [sys.executable, "-c", "from bitplan.cli import main; main()", *self.command],
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=log,
            )

    def look(self) -> int:
        """The work units that are kept now. A file that has become shorter was started anew: what it had counts again."""
        journals, checkpoints = self.folder.rglob("*.journal"), self.folder.glob("out/finetune.safetensors")
        for path in [*journals, *checkpoints, *(self.folder / "cache").rglob("*.arrow")]:
            try:
                self._follow(path)
            except FileNotFoundError:  # finished, or replaced, between listing and reading
                continue
        return sum(self._counts.values())

    def _follow(self, path: Path) -> None:
        if path.suffix == ".journal":
            # another name, so that the last records can be counted when the command has removed it
            kept = self.folder / f"kept-{path.stat().st_ino}"
            if not kept.exists():
                os.link(path, kept)
        for file in self.folder.glob("kept-*"):
            if self._changed(file):
                self._count(file, max(file.read_bytes().count(b"\n") - 1, 0))
        if path.suffix == ".safetensors" and self._changed(path):
            self._count(path, epochs_of(path))
        if path.suffix == ".arrow" and self._changed(path):
            try:
                self._steps = DeviceProfile.load(path).entries
            except FileFormatError:  # a loss profile
                return
            self._count(path, len(self._steps))

    def _changed(self, file: Path) -> bool:
        now = file.stat().st_mtime_ns
        changed = self._times.get(file) != now
        self._times[file] = now
        return changed

    def _count(self, file: Path, count: int) -> None:
        before = self._counts.get(file, 0)
        self.recorded += count - before if count >= before else count
        self._counts[file] = count

    def steps(self) -> Mapping[Any, Any]:
        """The latencies in the cache, by step."""
        self.look()
        return self._steps

    def to_the_end(self) -> float:
        """Seconds. Raises SystemExit where the command fails."""
        begin, process = time.monotonic(), self.start()
        while process.poll() is None:
            self.look()
            time.sleep(POLL)
        self.look()
        if process.returncode:
            raise SystemExit(
                f"{' '.join(self.command)} failed in {self.folder}: {(self.folder / 'log').read_text()[-2000:]}"
            )
        return time.monotonic() - begin

    def killed_at(self, units: int, delay: float) -> bool:
        """Whether the kill came before the end."""
        process = self.start()
        while process.poll() is None and self.look() < units:
            time.sleep(POLL)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.look()
        return process.returncode == -signal.SIGKILL


def epochs_of(checkpoint: Path) -> int:
    """Finished epochs of a training."""
    with safe_open(checkpoint, "np") as file:
        return len(json.loads(file.metadata()["state"])["history"]) - 1


def result(folder: Path, scenario: Scenario) -> Any:
    """What has to be the same."""
    if scenario.name == FINETUNE:
        return [(folder / "out" / name).read_bytes() for name in ("network.bitplan", "trained.safetensors")]
    if scenario.name == FRONTIER:
        frontier = read_frontier(folder / "stored" / "frontier.arrow")
        return [{key: value for key, value in row.items() if key != "seconds"} for row in summary(frontier.points)]
    return (folder / "out" / "loss.arrow").read_bytes()


def examined(scenario: Scenario, subject: Sequence[str], stored: Path | None, kills: int, seed: int) -> dict[str, Any]:
    """One scenario: undisturbed, then killed."""
    random = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(prefix="kills-") as place:
        runs = []
        for name in ("undisturbed", "killed"):
            folder = Path(place) / name
            folder.mkdir()
            if stored is not None:
                shutil.copytree(stored, folder / "stored")
            runs.append(Run(folder, [*scenario.arguments, *subject]))
        undisturbed, run = runs
        seconds = undisturbed.to_the_end()
        total = undisturbed.recorded
        killed, kept = 0, True
        steps: Mapping[Any, Any] = {}
        for units in np.sort(random.integers(0, total, kills)):
            killed += run.killed_at(int(units), float(random.uniform(0, DELAY)))
            now = run.steps()
            kept = kept and all(now.get(step) == latency for step, latency in steps.items())
            steps = now
        run.to_the_end()
        now, expected = run.steps(), undisturbed.steps()
        kept = (
            kept and all(now.get(step) == latency for step, latency in steps.items()) and now.keys() == expected.keys()
        )
        twice = run.recorded - total
        return {
            "scenario": scenario.name,
            "units": total,
            "kills": killed,
            "same_result": result(undisturbed.folder, scenario) == result(run.folder, scenario),
            "latencies_kept": kept,
            "recorded_twice": twice,
            "repeated_by_one_kill_at_most": (twice / max(killed, 1) + scenario.in_flight) / total,
            "seconds_undisturbed": seconds,
        }


def stored(command: Sequence[str], subject: Sequence[str], place: Path) -> Path:
    """The folder that a command leaves for a scenario to begin with."""
    folder = Path(tempfile.mkdtemp(dir=place))
    Run(folder, [*command, "-o", "stored", *subject]).to_the_end()
    return folder / "stored"


def line(row: Mapping[str, Any]) -> str:
    return (
        f"| {row['scenario']} | {row['units']} | {row['kills']} | {'same' if row['same_result'] else 'DIFFERENT'} | "
        f"{'kept' if row['latencies_kept'] else 'LOST'} | {row['recorded_twice']} | "
        f"{100 * row['repeated_by_one_kill_at_most']:.2f} % |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=list(SUBJECTS), default="example")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    names = [scenario.name for scenario in SCENARIOS]
    parser.add_argument("--scenarios", nargs="+", choices=names, default=names)
    parser.add_argument("--loss-size", type=int, help="calibration images that losses are measured on")
    parser.add_argument("--encodings", nargs="+", default=[], help="the menu; the default one if not given")
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/<machine>/kills-<network>.json")
    arguments = parser.parse_args()
    menu = ["--encodings", ",".join(arguments.encodings)] if arguments.encodings else []
    subject = [*SUBJECTS[arguments.network], *menu]
    subject += [] if arguments.loss_size is None else ["--loss-size", str(arguments.loss_size)]
    print("| scenario | units | kills | result | latencies | recorded twice | repeated by one kill, at most |")
    rows = []
    with tempfile.TemporaryDirectory(prefix="kills-") as place:
        for scenario in SCENARIOS:
            if scenario.name not in arguments.scenarios:
                continue
            before = PREPARED.get(scenario.name)
            begun = stored(before, subject, Path(place)) if before else None
            own = {FRONTIER: menu, FINETUNE: SUBJECTS[arguments.network]}.get(scenario.name, subject)
            rows.append(examined(scenario, own, begun, arguments.kills, arguments.seed))
            print(line(rows[-1]), flush=True)
    path = arguments.json or machine_folder() / f"kills-{arguments.network}.json"
    write_atomically(path, json.dumps(rows, indent=1).encode())
    if not all(r["same_result"] and r["latencies_kept"] and r["repeated_by_one_kill_at_most"] < BAR for r in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
