"""A result folder as the main job leaves it, made without torch: profiles made up, a real plan, a real frontier."""

from __future__ import annotations

import json
import shutil
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bitplan.evaluate import Evaluation
from bitplan.kernels.artifact import HEADER_BYTES
from bitplan.network import RELU, Conv2d, Input, Linear, Mean, Network, Node
from bitplan.network_file import network_to_json
from bitplan.optimizer.frontier import frontier
from bitplan.optimizer.frontier.file import write_frontier
from bitplan.optimizer.plan import plan
from bitplan.policies.policy_file import policy_hash, write_policy
from bitplan.profiles.device import DeviceProfile, Latency
from bitplan.profiles.fingerprint import Fingerprint
from bitplan.profiles.loss import HASHES, LossProfile
from bitplan.profiles.stand_in import stand_in_artifact
from bitplan.profiles.steps import all_keys
from bitplan.recovery_names import Gain
from bitplan.result import MET, MeasuredLatency, Outcome, Result
from bitplan.targets import Targets
from bitplan.variant import Variant

MENU = tuple(Variant.parse(text) for text in ("int8", "int4", "binary"))
ODD = "layer <b>&amp; </script>"
"""A layer's name that would end a script, and be taken for markup."""


def network() -> Network:
    convolution = Conv2d((3, 3), padding=(1, 1, 1, 1), activation=RELU)
    return Network(
        (
            Node("x", Input(), (), (3, 8, 8)),
            Node("stem", convolution, ("x",), (16, 8, 8)),
            Node(ODD, convolution, ("stem",), (16, 8, 8)),
            Node("body", convolution, (ODD,), (32, 8, 8)),
            Node("mean", Mean(), ("body",), (32,)),
            Node("head", Linear(), ("mean",), (4,)),
        ),
        ("head",),
    )


def loss_profile(of: Network) -> LossProfile:
    """Losses of choices and of pairs, some of the latter below zero."""
    random = np.random.default_rng(3)
    choices = [(node.name, variant) for node in of.layers for variant in MENU]
    level = np.array([{"int8": 0.01, "int4": 0.1, "binary": 0.5}[variant.encoding] for _, variant in choices])
    features = random.normal(0, 0.4, (len(choices), 5)) * level[:, None]
    apart = np.array([[a != b for b, _ in choices] for a, _ in choices])
    gram = features @ features.T
    increases = {choice: np.full(4, gram[i, i], np.float32) for i, choice in enumerate(choices)}
    hashes = {**dict.fromkeys(HASHES, "0" * 64), "network": of.content_hash}
    return LossProfile("kl", hashes, increases, "gram", np.where(apart, 2 * gram, 0.0), True)


def device_profile(of: Network) -> DeviceProfile:
    menu = {node.name: MENU for node in of.layers}
    entries = {
        key: Latency(median := 1e-6 * (1 + zlib.crc32(str(key).encode()) % 100), 0.9 * median, 1.2 * median, 50)
        for key in all_keys(of, menu, 1, 1)
    }
    machine = Fingerprint("a processor", ("avx2",), "avx2", 4, "2", python="3.11", bitplan="0.1.0")
    return DeviceProfile(machine, Latency(1.0, 1.0, 1.0, 1), entries, "2026-01-02T03:04:05+00:00")


def write_result(path: Path, budget: int) -> None:
    """All files of the main job, and a frontier."""
    path.mkdir()
    of = network()
    loss, device, menu = loss_profile(of), device_profile(of), {node.name: MENU for node in of.layers}
    targets = Targets(latency=1e-3, bytes=budget)
    policy = plan(of, loss, device, targets, menu)
    write_policy(path / "policy.json", policy)
    (path / "network.json").write_text(network_to_json(of))
    device.save(path / "device.arrow")
    loss.save(path / "loss.arrow")
    found = frontier(of, loss, device, Targets(), menu, points=6, time_limit=20)
    chosen = replace(found.points[0], name="p00", policy=policy)
    write_frontier(path / "frontier.arrow", replace(found, points=(chosen, *found.points)))
    artifact = bytearray(stand_in_artifact(of, policy.variants))
    artifact[56:88] = policy_hash(policy)
    artifact[HEADER_BYTES - 4 : HEADER_BYTES] = zlib.crc32(artifact[: HEADER_BYTES - 4]).to_bytes(4, "little")
    (path / "network.bitplan").write_bytes(artifact)
    predicted = policy.predicted["latency_ms"] or 0
    evaluation = Evaluation(200, "kl", 0.0321, 0.001, 0.98, 0.9, 0.885, 0.004)
    latency = MeasuredLatency(1.07 * predicted, predicted, 1.2 * predicted, 1.02, 1.1 * predicted)
    gains = (Gain("rounded", 0.08, True), Gain("correct", 0.03, True), Gain("tune", 0.05, False))
    ours = Outcome("our plan", len(artifact), predicted, latency, evaluation, gains)
    full = Outcome("full precision", 4 * len(artifact), None, latency, replace(evaluation, loss=0.0, accuracy=0.9))
    result = Result(MET, targets, policy, of, ours, 12345, comparison=[full])
    (path / "result.json").write_text(json.dumps(result.to_json()))


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two results, `out` and the smaller `other`."""
    path = tmp_path_factory.mktemp("results")
    write_result(path / "out", 4500)
    write_result(path / "other", 3000)
    return path


@pytest.fixture
def folder(tmp_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with copies of both results."""
    shutil.copytree(results, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path
