"""Reads what a result folder holds. Only the policy must be there; of what else is missing or does not belong to it, it is
noted what and why."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from bitplan.errors import BitplanError, FileFormatError, UsageError
from bitplan.kernels.artifact import stored_policy_hash
from bitplan.network import Network
from bitplan.network_file import read_network
from bitplan.optimizer.frontier import Frontier
from bitplan.optimizer.frontier.file import read_frontier
from bitplan.policies.policy import Policy
from bitplan.policies.policy_file import policy_hash, read_policy
from bitplan.profiles.device import DeviceProfile
from bitplan.profiles.loss import LossProfile
from bitplan.report.result_file import read_result
from bitplan.report.step_times import STEP_TIMES, StepTimes, read_step_times
from bitplan.studies.files import named_trial
from bitplan.workflow import ARTIFACT, DEVICE, LOAD, LOSS, NETWORK, POLICY, RESULT

T = TypeVar("T")

FRONTIER = "frontier.arrow"
MAKE = "run `optimize -o {folder}`"


@dataclass
class Folder:
    """The content of a result folder; None for what is not there. `missing`: by file, why it is left out."""

    path: Path
    policy: Policy
    result: dict[str, Any] | None = None
    network: Network | None = None
    artifact: bytes | None = None
    device: DeviceProfile | None = None
    loss: LossProfile | None = None
    frontier: Frontier | None = None
    times: StepTimes | None = None
    missing: dict[str, str] = field(default_factory=dict)


def read_folder(path: Path) -> Folder:
    """Raises UsageError for a folder that holds no result, and FileFormatError or UsageError for a damaged policy."""
    if not path.is_dir():
        raise UsageError(f"{path} is not a folder; name the folder that `optimize -o FOLDER` filled")
    if not (path / POLICY).exists():
        raise UsageError(
            f"{path} holds no result: there is no {POLICY} in it; {MAKE.format(folder=shlex.quote(str(path)))} first"
        )
    found = Folder(path, read_policy(path / POLICY))
    found.result = _optional(found, RESULT, lambda file: read_result(file, found.policy))
    found.network = _optional(found, NETWORK, lambda file: _network(file, found.policy))
    found.artifact = _optional(found, ARTIFACT, lambda file: _artifact(file, found.policy))
    found.device = _optional(found, DEVICE, lambda file: _device(file, found.policy))
    found.loss = _optional(found, LOSS, lambda file: _loss(file, found.policy))
    found.frontier = _optional(found, FRONTIER, lambda file: _frontier(file, found.policy))
    if found.artifact is not None:
        artifact = found.artifact
        found.times = _optional(found, STEP_TIMES, lambda file: read_step_times(file, artifact))
    else:
        found.missing[STEP_TIMES] = "without the artifact, no layer can have been timed in it"
    return found


REMEDIES = {
    RESULT: "nothing was carried out: `optimize realise {policy} -o {folder}` does, with the model and data as usual",
    NETWORK: "the main job and `optimize profile -o {folder}` write it",
    ARTIFACT: "nothing was carried out: `optimize realise {policy} -o {folder}` does, with the model and data as usual",
    DEVICE: "the main job and `optimize profile -o {folder}` write it",
    LOSS: "the main job and `optimize profile -o {folder}` write it",
    FRONTIER: "`optimize frontier {folder}` computes it",
    STEP_TIMES: "`optimize report {folder} --time` times the layers on this machine",
}
NOT_HYBRID = (DEVICE, LOSS, FRONTIER, STEP_TIMES)
FRONTIER_NEEDS = (NETWORK, DEVICE, LOSS)
HYBRID = "results of --hybrid have none, for their layers run inside a torch module"


def _optional(found: Folder, name: str, read: Callable[[Path], T]) -> T | None:
    """What `read` makes of the file, or None with the reason in `missing`."""
    file = found.path / name
    if not file.exists():
        found.missing[name] = f"there is no {name}; {_remedy(found.path, name)}"
        return None
    try:
        return read(file)
    except (BitplanError, OSError) as error:
        found.missing[name] = str(error)
        return None


def _remedy(folder: Path, name: str) -> str:
    """How a missing file is got, or why it cannot be."""
    if name in NOT_HYBRID and (folder / LOAD).exists():
        return HYBRID
    lacking = [needed for needed in FRONTIER_NEEDS if not (folder / needed).exists()]
    if name == FRONTIER and lacking:
        return f"without {', '.join(lacking)} it cannot be computed"
    trial = named_trial(folder)
    if trial is not None and name in (RESULT, ARTIFACT):
        return f"nothing was carried out: `optimize realise {shlex.quote(trial)}` does"
    policy, quoted = shlex.quote(str(folder / POLICY)), shlex.quote(str(folder))
    return REMEDIES[name].format(folder=quoted, policy=policy)


def _network(file: Path, policy: Policy) -> Network:
    network = read_network(file)
    named, expected = {node.name for node in network.layers}, {layer.name for layer in policy.layers}
    if named != expected:
        raise FileFormatError(
            f"{file} has other layers than {POLICY} beside it"
            "; realise the policy anew, or take the file out of the folder"
        )
    return network


def _artifact(file: Path, policy: Policy) -> bytes:
    data = file.read_bytes()
    if stored_policy_hash(data) != policy_hash(policy):
        raise FileFormatError(
            f"{file} does not carry out {POLICY} beside it; realise the policy anew, or take the file out of the folder"
        )
    return data


def _same_origin(file: Path, hashes: dict[str, str], policy: Policy) -> None:
    for name in ("network", "weights", "data"):
        expected = policy.hashes.get(name)
        if expected is not None and hashes.get(name, expected) != expected:
            raise FileFormatError(
                f"{file} is of other {name} than {POLICY} beside it"
                "; realise the policy anew, or take the file out of the folder"
            )


def _device(file: Path, policy: Policy) -> DeviceProfile:
    profile = DeviceProfile.load(file)
    if policy.hashes.get("device", profile.fingerprint.hash) != profile.fingerprint.hash:
        raise FileFormatError(
            f"{file} is of another machine than {POLICY} beside it was planned for"
            "; realise the policy anew, or take the file out of the folder"
        )
    return profile


def _loss(file: Path, policy: Policy) -> LossProfile:
    profile = LossProfile.load(file)
    _same_origin(file, dict(profile.hashes), policy)
    return profile


def _frontier(file: Path, policy: Policy) -> Frontier:
    found = read_frontier(file)
    for point in found.points[:1]:
        _same_origin(file, dict(point.policy.hashes), policy)
    return found
