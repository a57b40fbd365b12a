"""What all trials of a study are predicted with and planned under: the device profile, and limits where none are given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bitplan.config import Config
from bitplan.errors import UsageError
from bitplan.file_lock import PATIENCE, FileLock, patiently
from bitplan.network import Network
from bitplan.optimizer.plan import plan, uniform
from bitplan.planned_device import planned_device
from bitplan.policies.menu import Menu
from bitplan.profiles.device import DeviceProfile
from bitplan.profiles.library import profile_path
from bitplan.profiles.steps import all_keys
from bitplan.profiling import known_or_timed
from bitplan.progress import Reporter
from bitplan.studies.knobs import BYTES, LATENCY
from bitplan.studies.space import Space
from bitplan.targets import Targets
from bitplan.trained import Trained
from bitplan.variant import Variant
from bitplan.workflow import DEVICE, example_targets


def fixed_device(network: Network, menu: Menu, config: Config, folder: Path, reporter: Reporter) -> DeviceProfile:
    """The device profile that all trials are predicted with. The first call for a study takes it from the file or library
    entry that is named, or times this machine, and leaves it in the folder, for later calls and for other workers."""
    path = folder / DEVICE
    with patiently(lambda: FileLock(path), PATIENCE):
        keys = all_keys(network, menu, config.threads, config.batch)
        known = DeviceProfile.load(path) if path.exists() else None
        if known is not None and all(key in known.entries for key in keys):
            _check_same(known, config, path)
            return known
        if config.device_profile is not None:
            profile = planned_device(config.device_profile, network, menu, config, reporter)
        else:
            profile = known_or_timed(network, menu, config, reporter)
        kept = replace(profile, entries={key: profile.entries[key] for key in sorted(keys)})
        kept.save(path)
        return kept


def _check_same(known: DeviceProfile, config: Config, path: Path) -> None:
    """Raises UsageError where another profile is named than the one that the study was begun with."""
    named = None if config.device_profile is None else profile_path(config.device_profile)
    if named is None or not named.exists():
        return
    given = DeviceProfile.load(named)
    if (given.fingerprint, given.anchor.median) != (known.fingerprint, known.anchor.median):
        raise UsageError(
            f"the study was begun with another device profile than {named}, which it keeps in {path}; leave --device out to "
            "go on, or begin another study with --name"
        )


def targets_of_example(trained: Trained, device: DeviceProfile, config: Config, reporter: Reporter) -> Targets:
    """Targets that bind on the embedded example, as the main job chooses them."""
    network, menu, how = trained.network, trained.menu, {"threads": config.threads, "batch": config.batch}
    eight_bit = uniform(network, Variant("int8"), menu, None, device, **how)
    if eight_bit is None:
        raise UsageError("no targets are given, and the menu has no int8 to take them from; name --budget")
    return example_targets(
        network,
        eight_bit,
        lambda targets: plan(network, None, device, targets, menu, seed=config.seed, **how),
        reporter,
    )


def planned_limits(trained: Trained, device: DeviceProfile, targets: Targets, space: Space, config: Config) -> Targets:
    """What plans are made under: the targets, and where a share of a limit is turned that there is not, uniform int8's."""
    names = {knob.name for knob in space.knobs}
    lacking = [
        knob for knob, limit in ((BYTES, targets.bytes), (LATENCY, targets.latency)) if knob in names and limit is None
    ]
    if not lacking:
        return targets
    eight_bit = uniform(
        trained.network, Variant("int8"), trained.menu, None, device, threads=config.threads, batch=config.batch
    )
    if eight_bit is None:
        raise UsageError(
            f"the knob {lacking[0]} is a share of a limit, and there is none; give --budget or --target-latency"
        )
    size, latency = eight_bit.predicted["file_bytes"], eight_bit.predicted["latency_ms"]
    return replace(
        targets,
        bytes=int(size or 0) if BYTES in lacking else targets.bytes,
        latency=1e-3 * (latency or 0) if LATENCY in lacking else targets.latency,
    )
