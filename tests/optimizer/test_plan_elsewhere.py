"""`optimize plan` with the device profile of another machine, where neither torch nor the kernels are."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bitplan.network_file import network_to_json
from bitplan.profiles.fingerprint import Fingerprint

PROGRAM = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision") or name == "bitplan.kernels._runtime":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from bitplan.cli import main
main()
"""


def test_a_plan_needs_neither_torch_nor_kernels_nor_the_machine(
    random_case: Callable[..., Any], tmp_path: Path
) -> None:
    case = random_case(3)
    (tmp_path / "network.json").write_text(network_to_json(case.network))
    case.loss.save(tmp_path / "loss.arrow")
    board = replace(case.device, fingerprint=Fingerprint("a board", (), "avx2", 4, "1"))
    board.save(tmp_path / "board.arrow")
    pins = [f"--pin={name}={variants[0]}" for name, variants in case.menu.items()]
    command = ["plan", str(tmp_path), "--device", str(tmp_path / "board.arrow"), *pins, "--json"]
    command += ["--threads", str(case.threads), "--batch", str(case.batch)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["solver"]["status"] == "optimal"
    assert found["latency_estimates"] is None
    assert found["predicted_latency_ms"] > 0
    assert "planning ahead for a board at the level avx2" in " ".join(done.stderr.split())
