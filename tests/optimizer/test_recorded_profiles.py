"""The device profiles that come with bitplan: the same network and targets, planned for two levels of kernels."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitplan.errors import UsageError
from bitplan.network import RELU, Conv2d, Input, Linear, Mean, Network, Node
from bitplan.network_file import network_to_json
from bitplan.policies.menu import menu_for
from bitplan.profiles.device import DeviceProfile
from bitplan.profiles.library import profile_path, recorded_profiles, writable_profile_path
from bitplan.profiles.loss import HASHES, LossProfile

from .test_plan_elsewhere import PROGRAM

ENCODINGS = ["int8", "int4", "ternary"]


def network() -> Network:
    """Convolutions as small image networks have them: 1.1 million weights."""
    nodes = [Node("image", Input(), (), (3, 32, 32))]
    for number, (channels, stride) in enumerate([(32, 1), (64, 2), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1)]):
        side = nodes[-1].shape[1] // stride
        op = Conv2d((3, 3), (stride, stride), (1, 1, 1, 1), activation=RELU)
        nodes.append(Node(f"conv{number}", op, (nodes[-1].name,), (channels, side, side)))
    nodes.append(Node("mean", Mean(), (nodes[-1].name,), (256,)))
    nodes.append(Node("classifier", Linear(), ("mean",), (10,)))
    return Network(tuple(nodes), ("classifier",))


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A folder as `optimize profile` leaves it; coarse layers cost loss, early ones more of it."""
    subject = network()
    costs = {"int8": 0.0, "int4": 0.01, "ternary": 0.1}
    increases = {
        (name, variant): np.full(4, costs[variant.encoding] / (1 + place), np.float32)
        for place, (name, variants) in enumerate(menu_for(subject, encodings=ENCODINGS).items())
        for variant in variants
    }
    hashes = dict.fromkeys(HASHES, "0" * 64) | {"network": subject.content_hash}
    (tmp_path / "network.json").write_text(network_to_json(subject))
    LossProfile("kl", hashes, increases).save(tmp_path / "loss.arrow")
    return tmp_path


def planned(stored: Path, device: str) -> Any:
    """What `plan` says, where neither torch nor the kernels are."""
    command = ["plan", str(stored), "--device", device, "--encodings", ",".join(ENCODINGS), "--budget", "800kB"]
    command += ["--target-latency", "0.35ms", "--explain", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command], capture_output=True, text=True, timeout=120, check=False, cwd=stored
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_same_targets_lead_to_different_policies_and_say_why(stored: Path) -> None:
    found = {device: planned(stored, device) for device in ("avx512vnni", "avx2")}
    layers = {device: [layer["encoding"] for layer in plan["layers"]] for device, plan in found.items()}
    binds = {
        device: {limit["target"]: limit["binds"] for limit in plan["explanation"]["limits"]}
        for device, plan in found.items()
    }
    # with VNNI int8 takes no longer than fewer bits: bytes alone ask for them
    assert binds["avx512vnni"] == {"bytes": True, "latency": False}
    # without it int8 takes longest
    assert binds["avx2"]["latency"]
    assert layers["avx2"] != layers["avx512vnni"]
    assert layers["avx2"].count("int8") < layers["avx512vnni"].count("int8")
    for plan in found.values():
        assert plan["predicted_latency_ms"] <= 0.35 and plan["predicted_file_bytes"] <= 800_000


def test_what_comes_with_bitplan_is_small_found_by_name_and_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BITPLAN_PROFILES", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert {path.stem for path in recorded_profiles()} == {"avx2", "avx512vnni"}
    steps = []
    for path in recorded_profiles():
        assert path.stat().st_size < 150_000
        assert profile_path(Path(path.stem)) == path
        profile = DeviceProfile.load(path)
        assert profile.fingerprint.isa == path.stem
        steps.append(profile.entries.keys())
        with pytest.raises(UsageError, match=r"comes with bitplan .*`optimize plan --device avx"):
            writable_profile_path(Path(path.stem))
    assert steps[0] == steps[1]
