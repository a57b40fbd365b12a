"""`optimize profile device`, `list`, `show`, `diff` and `merge`: device profiles as files that travel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bitplan.config import Config
from bitplan.errors import UsageError
from bitplan.network import Network
from bitplan.network_file import read_network
from bitplan.policies.menu import menu_for
from bitplan.profiles.device import DeviceProfile
from bitplan.profiles.estimates import Estimator
from bitplan.profiles.fingerprint import this_machine
from bitplan.profiles.library import (
    SUFFIX,
    default_path,
    profile_path,
    recorded_profiles,
    stored_profiles,
    writable_profile_path,
)
from bitplan.profiles.staleness import standing, this_machine_if_known
from bitplan.profiles.steps import StepKey, all_keys
from bitplan.profiles.survey import survey_networks
from bitplan.profiling import device_profile, known_or_timed
from bitplan.progress import Reporter
from bitplan.workflow import NETWORK

CLOSE = 0.15
"""The relative error up to which an estimate counts as close."""


def record(paths: Sequence[Path], output: Path | None, config: Config, reporter: Reporter) -> dict[str, Any]:
    """Times what the library's profile of this machine lacks: the steps of the networks that are named, else of the
    configured model, else of the survey's typical layers. All that the profile then knows is written to `output`
    too, if one is given. What `--json` prints. Raises UsageError for an output that is no .arrow file."""
    library = _library_path(config)
    if output is not None and output.suffix != SUFFIX:
        raise UsageError(f"the output {output} must be a file {SUFFIX}, such as my-board{SUFFIX}")
    if paths:
        for path in paths:
            network = network_named(path)
            profile = known_or_timed(network, _menu(network, config), config, reporter, what=f"kernels for {path}")
    elif config.model is not None:
        from bitplan.trained import load_trained

        profile = device_profile(load_trained(config, reporter), config, reporter)
    else:
        networks = survey_networks()
        for number, network in enumerate(networks, 1):
            what = f"typical layers, {number} of {len(networks)}"
            profile = known_or_timed(network, _menu(network, config), config, reporter, what=what)
    if output is not None:
        profile.save(output)
    return {"device_profile": str(output or library), "library": str(library), **summary(profile)}


def listed() -> list[dict[str, Any]]:
    """Every profile of the library and those that come with bitplan (`comes_with_bitplan`), and what each is to this
    machine; `unreadable`: why it cannot be read."""
    here, found, shipped = this_machine_if_known(), [], recorded_profiles()
    for path, profile in stored_profiles():
        entry: dict[str, Any] = {"name": path.stem, "path": str(path), "comes_with_bitplan": path in shipped}
        if isinstance(profile, str):
            entry["unreadable"] = profile
        else:
            stands = standing(profile.fingerprint, here, path in shipped)
            entry |= summary(profile) | {"here": stands.here, "stale": list(stands.reasons), "standing": str(stands)}
            if path in shipped and not stands.reasons:
                entry["standing"] = "comes with bitplan"
        found.append(entry)
    return found


def shown(named: Path, network: Path | None, accuracy: bool, config: Config) -> dict[str, Any]:
    """What a profile holds: machine, anchor, steps by variant and kernel; with a network, how many of the steps that its
    menu can need were timed, can be estimated, or neither; with `accuracy`, the errors of estimating every layer's
    step of one output format without its shape."""
    path = profile_path(named)
    profile = DeviceProfile.load(path)
    stands = standing(profile.fingerprint, this_machine_if_known(), path in recorded_profiles())
    found = {"path": str(path), **summary(profile), "standing": str(stands), "stale": list(stands.reasons)}
    found["machine"] = profile.fingerprint.to_json()
    found["anchor_ms"] = profile.anchor.median * 1e3
    kinds: dict[tuple[str, str, int, int], list[bool]] = defaultdict(list)
    for key, latency in profile.entries.items():
        kinds[key.variant, key.kernel, key.threads, key.batch].append(latency.estimated)
    names = ("variant", "kernel", "threads", "batch")
    found["kinds"] = [
        dict(zip(names, kind, strict=True)) | {"steps": len(marks), "estimated": sum(marks)}
        for kind, marks in sorted(kinds.items())
    ]
    if network is not None:
        found["network"] = _coverage(profile, network_named(network), config)
    if accuracy:
        found["accuracy"] = _accuracy(profile)
    return found


def compared(first: Path, second: Path) -> dict[str, Any]:
    """Two profiles side by side: how their machines differ, and by what factor the second one's steps take longer."""
    a, b = (DeviceProfile.load(profile_path(named)) for named in (first, second))
    shared = sorted(a.entries.keys() & b.entries.keys())
    ratios: dict[tuple[str, str], list[float]] = defaultdict(list)
    for key in shared:
        if a.entries[key].median > 0:
            ratios[key.variant, key.kernel].append(b.entries[key].median / a.entries[key].median)
    return {
        "differences": a.fingerprint.differences(b.fingerprint, "in the first", "in the second"),
        "anchor_ratio": b.anchor.median / a.anchor.median,
        "shared": len(shared),
        "only_first": len(a.entries) - len(shared),
        "only_second": len(b.entries) - len(shared),
        "kinds": [
            {"variant": variant, "kernel": kernel, "steps": len(found), **_quantiles(found)}
            for (variant, kernel), found in sorted(ratios.items())
        ],
    }


def merged(named: Sequence[Path], output: Path) -> dict[str, Any]:
    """Several profiles of one machine and its kernels as one, at the first one's level of speed; later ones win. Raises
    UsageError for an output that is no .arrow file, for fewer than two, and for profiles of different machines."""
    if output.suffix != SUFFIX:
        raise UsageError(f"name the merged profile with -o FILE{SUFFIX}")
    if len(named) < 2:
        raise UsageError("merging takes two profiles at least")
    first, *others = (DeviceProfile.load(profile_path(one)) for one in named)
    for other in others:
        first = first.merged(other)
    first.save(output)
    return {"device_profile": str(output), **summary(first)}


def summary(profile: DeviceProfile) -> dict[str, Any]:
    """The figures that every command gives of a profile."""
    machine = profile.fingerprint
    return {
        "fingerprint": machine.hash,
        "cpu": machine.cpu,
        "isa": machine.isa,
        "kernel_version": machine.kernel_version,
        "governor": machine.governor,
        "recorded": profile.recorded,
        "steps": len(profile.entries),
        "estimated": len(profile.entries) - len(profile.timed),
    }


def network_named(path: Path) -> Network:
    """The network of a file, or of a folder that `optimize profile` filled."""
    return read_network(path / NETWORK if path.is_dir() else path)


def _library_path(config: Config) -> Path:
    return writable_profile_path(config.device_profile) if config.device_profile else default_path(this_machine())


def _menu(network: Network, config: Config) -> Mapping[str, Any]:
    return menu_for(network, encodings=config.encodings or None, pins=config.pin, exclude=config.exclude)


def _coverage(profile: DeviceProfile, network: Network, config: Config) -> dict[str, Any]:
    keys = all_keys(network, _menu(network, config), config.threads, config.batch)
    missing, estimator = sorted(profile.missing(keys)), Estimator(profile)
    estimates = {key: estimator.estimate(key) for key in missing}
    bars = [found.error / found.median for found in estimates.values() if found]
    return {
        "steps": len(keys),
        "timed": len(keys) - len(missing),
        "estimates": len(bars),
        "median_error_bar": float(np.median(bars)) if bars else None,
        "unknown": [str(key) for key, found in estimates.items() if found is None],
    }


def _accuracy(profile: DeviceProfile) -> list[dict[str, Any]]:
    """By compute kernel: the relative errors of layers that are estimated without their shape."""
    estimator, by_kernel = Estimator(profile), defaultdict[str, list[StepKey]](list)
    for key in profile.timed:
        if key.kernel:
            by_kernel[key.kernel].append(key)
    found = []
    for kernel, keys in sorted(by_kernel.items()):
        errors = estimator.left_out(keys)
        if len(errors.errors):
            figures = {"median": errors.quantile(0.5), "high": errors.quantile(0.9), "close": errors.within(CLOSE)}
            found.append({"kernel": kernel, "steps": len(errors.errors), **figures})
    return found


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    low, median, high = np.quantile(values, (0.1, 0.5, 0.9))
    return {"low": float(low), "median": float(median), "high": float(high)}
