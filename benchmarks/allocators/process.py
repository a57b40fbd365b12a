"""The other end of worker.py: asks a peer in a process of its own, under an interpreter that has the peer, and keeps
every answer in a file, so that nothing is asked twice."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bitplan.atomic_file import write_atomically

from . import Unavailable


@dataclass
class Answers:
    """What a peer answered for one network and `images` of its calibration images: bits of layers by budget."""

    key: dict[str, Any]
    about: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    bits: dict[float, dict[str, int]] = field(default_factory=dict)
    seconds: dict[float, float] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, key: dict[str, Any]) -> Answers:
        """The answers in a file; none where there is no file or it belongs to another question."""
        stored = json.loads(path.read_text()) if path.exists() else {}
        if stored.get("key") != key:
            return cls(key)
        by_budget = stored["answers"]
        return cls(
            key,
            stored["about"],
            stored["versions"],
            {answer["budget"]: answer["bits"] for answer in by_budget},
            {answer["budget"]: answer["seconds"] for answer in by_budget},
        )

    def write(self, path: Path) -> None:
        """Atomically."""
        answers = [{"budget": b, "bits": bits, "seconds": self.seconds[b]} for b, bits in self.bits.items()]
        stored = {"key": self.key, "about": self.about, "versions": self.versions, "answers": answers}
        write_atomically(path, json.dumps(stored, indent=1).encode())


def ask(
    peer: str,
    network: str,
    budgets: Sequence[float],
    key: dict[str, Any],
    folder: Path,
    python: str,
    say: Callable[[str], None],
) -> Answers:
    """A peer's answers for all budgets, those in `folder` or new ones. `key`: what they depend on, with `images`, the
    number of calibration images; `python`: an interpreter that has the peer.
    Raises Unavailable, with the place of the peer's own messages, where it cannot serve."""
    path = folder / f"{network}.{peer}.json"
    answers = Answers.read(path, key)
    missing = [budget for budget in budgets if budget not in answers.bits]
    if not missing:
        return answers
    benchmarks = Path(__file__).resolve().parent.parent
    paths = [str(benchmarks), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    request = {"peer": peer, "network": network, "images": key["images"], "budgets": missing}
    folder.mkdir(parents=True, exist_ok=True)
    log = path.with_suffix(".log")
    with (
        log.open("w") as messages,
        subprocess.Popen(
            [python, "-P", "-m", "allocators.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        ) as process,
    ):
        try:
            assert process.stdin
            assert process.stdout
            process.stdin.write(json.dumps(request))
            process.stdin.close()
            for line in process.stdout:
                _take(json.loads(line), answers)
                answers.write(path)
                say(f"{network}: {peer} has answered for {len(answers.bits)} of {len(budgets)} budgets")
        except BaseException:
            process.kill()
            raise
    if any(budget not in answers.bits for budget in budgets):
        last = log.read_text().strip().splitlines()[-1:] or ["it said nothing"]
        raise Unavailable(f"{peer} failed on {network} with code {process.returncode}: {last[0]} (see {log})")
    return answers


def _take(answer: dict[str, Any], answers: Answers) -> None:
    if "unavailable" in answer:
        raise Unavailable(answer["unavailable"])
    if "about" in answer:
        answers.about, answers.versions = answer["about"], answer["versions"]
        return
    answers.bits[answer["budget"]], answers.seconds[answer["budget"]] = answer["bits"], answer["seconds"]
