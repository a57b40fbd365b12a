"""The wheel in an environment of its own, without torch: `make dist` builds and checks it.

    python tests/packaging/check_distribution.py WHEEL

A new environment gets the wheel and what it requires. There a made-up network's steps are timed, and `plan`, `frontier`,
`run`, `bench`, `report`, `runs` and `doctor` run as a user runs them. Raises SystemExit, naming the command, where one fails.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import venv
from pathlib import Path
from typing import Any

PREPARE = """
import importlib.util
from pathlib import Path

import numpy as np

assert importlib.util.find_spec("torch") is None, "torch is installed: this proves nothing"
import bitplan
from bitplan.network import RELU, Conv2d, Input, Linear, Mean, Network, Node
from bitplan.network_file import network_to_json
from bitplan.policies.menu import menu_for
from bitplan.profiles.loss import HASHES, LossProfile
from bitplan.profiles.measure_latency import measure
from bitplan.profiles.stand_in import stand_in_artifact

network = Network((
    Node("image", Input(), (), (3, 16, 16)),
    Node("conv1", Conv2d((3, 3), (1, 1), (1, 1, 1, 1), activation=RELU), ("image",), (16, 16, 16)),
    Node("conv2", Conv2d((3, 3), (2, 2), (1, 1, 1, 1), activation=RELU), ("conv1",), (32, 8, 8)),
    Node("mean", Mean(), ("conv2",), (32,)),
    Node("classifier", Linear(), ("mean",), (10,)),
), ("classifier",))
menu = menu_for(network, encodings=["int8", "int4"])
increases = {
    (name, variant): np.full(4, 0.01 * (1 + number) * (variant.encoding == "int4"), np.float32)
    for number, name in enumerate(menu)
    for variant in menu[name]
}
hashes = dict.fromkeys(HASHES, "0" * 64) | {"network": network.content_hash}
Path("network.json").write_text(network_to_json(network))
measure(network, menu).save(Path("device.arrow"))
LossProfile("kl", hashes, increases).save(Path("loss.arrow"))
Path("made.bitplan").write_bytes(stand_in_artifact(network, {name: menu[name][0] for name in menu}))
np.savez("images.npz", x=np.zeros((8, 3, 16, 16), np.uint8))
print(bitplan.__file__)
"""

SCHEMA = "import importlib.resources as r, json; json.loads((r.files('bitplan.progress') / 'schema.json').read_text())"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    wheel = parser.parse_args().wheel.resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "environment", with_pip=True)
        binaries = folder / "environment" / "bin"
        _run(folder, binaries / "python", "-m", "pip", "install", "--quiet", wheel)
        where = _run(folder, binaries / "python", "-c", PREPARE).strip()
        if str(folder) not in where:
            raise SystemExit(f"{where} is not the installed package")
        optimize = binaries / "optimize"
        for arguments in (("--help",), ("--version",), ("doctor",)):
            _run(folder, optimize, *arguments)
        size = json.loads(_run(folder, optimize, "plan", ".", "--encodings", "int8,int4", "--json"))[
            "predicted_file_bytes"
        ]
        budget = ("--budget", f"{size - 1000}B")
        planned = json.loads(_run(folder, optimize, "plan", ".", "--encodings", "int8,int4", "--json", *budget))
        if planned["solver"]["status"] != "optimal" or planned["predicted_file_bytes"] > size - 1000:
            raise SystemExit(f"the plan is not what was asked for: {planned}")
        _run(folder, optimize, "frontier", ".", "--encodings", "int8,int4", "--points", "3")
        _run(folder, optimize, "profile", "show", "avx2")  # a profile that comes with bitplan
        _run(folder, optimize, "run", "made.bitplan", "--data", "images.npz")
        _run(folder, optimize, "bench", "made.bitplan")
        _run(folder, optimize, "report", ".")
        _run(folder, optimize, "runs")
        _run(folder, binaries / "python", "-c", SCHEMA)
    print(f"{wheel.name}: installed and used without torch")


def _run(folder: Path, *command: Any) -> str:
    done = subprocess.run([str(word) for word in command], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        shown = " ".join(str(word) for word in command[:4])
        raise SystemExit(f"{shown}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
