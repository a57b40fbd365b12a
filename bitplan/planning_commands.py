"""`optimize plan` and `optimize frontier`: from stored profiles alone, without torch, images or the device."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bitplan.atomic_file import write_atomically
from bitplan.config import Config
from bitplan.errors import UsageError
from bitplan.explanation_text import tables
from bitplan.network import Network
from bitplan.network_file import read_network
from bitplan.optimizer.explain import explain_plan
from bitplan.optimizer.frontier import Frontier, frontier
from bitplan.optimizer.frontier.file import read_point, summary, write_frontier
from bitplan.optimizer.frontier.page import write_page
from bitplan.planned_device import planned_device, with_margin_noted
from bitplan.policies.menu import Menu, menu_for
from bitplan.policies.policy import Policy
from bitplan.policies.policy_file import read_policy
from bitplan.profiles.device import DeviceProfile
from bitplan.profiles.library import profile_path
from bitplan.profiles.loss import LossProfile
from bitplan.profiling import named_estimator, stored_loss_profile
from bitplan.progress import Reporter
from bitplan.report.frontier_picture import frontier_png
from bitplan.result import targets_json
from bitplan.targets import Targets
from bitplan.workflow import DEVICE, LOSS, NETWORK, check_output

HYBRID_PROFILES = "of --hybrid hold for one module and machine and are kept by the main job"
FRONTIER = "frontier"
"""Stem of the files that a frontier leaves: .arrow, .png, .html, and .journal while and after it is computed."""


@dataclass(frozen=True)
class Stored:
    """What `optimize profile` left in a folder, and the menu that the options ask for."""

    network: Network
    device: DeviceProfile
    loss: LossProfile
    menu: Menu


def stored(folder: Path, config: Config, reporter: Reporter) -> Stored:
    """Reads network and profiles. Raises UsageError for targets that planning alone cannot keep, FileFormatError for
    files that are missing or damaged. Steps that the device profile lacks are estimated."""
    if config.hybrid:
        raise UsageError(
            f"planning from stored profiles knows whole networks only: profiles {HYBRID_PROFILES}; to stop at the policy, "
            "run `optimize --hybrid --dry-run` with the same model and data"
        )
    if config.targets.max_drop is not None:
        raise UsageError("--max-drop is kept by measuring, which planning does not do; limit --max-loss instead")
    if config.polish:
        raise UsageError(
            "--polish measures on the network and its images, which planning does without; leave it out here"
        )
    network = read_network(folder / NETWORK)
    loss = stored_loss_profile(config, folder / LOSS)
    menu = menu_for(network, encodings=config.encodings or measured(loss), pins=config.pin, exclude=config.exclude)
    device = planned_device(config.device_profile or folder / DEVICE, network, menu, config, reporter)
    return Stored(network, device, loss, menu)


def measured(loss: LossProfile) -> list[str]:
    """What a plan chooses from where nothing is asked for: all that the loss profile was measured with."""
    return list(dict.fromkeys(str(variant) for _, variant in loss.choices))


def keep_inputs(folder: Path, output: Path, config: Config) -> None:
    """Copies the network and the profiles that a plan rests on to another folder where the policy goes, as they are: without
    what was estimated for this plan."""
    device, loss = profile_path(config.device_profile or folder / DEVICE), named_estimator(config)[1] or folder / LOSS
    for path, name in ((folder / NETWORK, NETWORK), (device, DEVICE), (loss, LOSS)):
        write_atomically(output / name, path.read_bytes())


def output_of(folder: Path, config: Config) -> Path:
    """Where results go: the profiles' folder unless another one is named."""
    return folder if config.output == Config().output else config.output


def explained(kept: Stored, policy: Policy, config: Config, reporter: Reporter) -> dict[str, Any]:
    """Prints why the plan is as it is; what `--json` adds. Takes up to --time-limit again."""
    with reporter.stage("explaining the plan") as report:
        found = explain_plan(
            kept.network,
            policy,
            kept.loss,
            kept.device,
            config.targets,
            kept.menu,
            threads=config.threads,
            batch=config.batch,
            time_limit=config.time_limit,
            seed=config.seed,
            progress=report,
        )
    reporter.say(f"losses are in {kept.loss.scale}")
    reporter.show(tables(found))
    return {"explanation": found.to_json()}


def compute_frontier(folder: Path, config: Config, points: int, reporter: Reporter) -> dict[str, Any]:
    """Computes the frontier, or goes on with it, and writes its files; what `--json` prints."""
    kept = stored(folder, config, reporter)
    output = output_of(folder, config)
    check_output(output)
    with reporter.stage("computing the frontier") as report:
        found = frontier(
            kept.network,
            kept.loss,
            kept.device,
            config.targets,
            kept.menu,
            points=points,
            threads=config.threads,
            batch=config.batch,
            time_limit=config.time_limit,
            seed=config.seed,
            log=output / f"{FRONTIER}.journal",
            progress=report,
        )
    noted = (replace(point, policy=with_margin_noted(point.policy, config.margin)) for point in found.points)
    found = replace(found, points=tuple(noted))
    files = _written(found, output, reporter)
    ours = [point for point in found.points if not point.uniform]
    beaten = [point for point in found.points if point.dominated_by]
    uniform = len(found.points) - len(ours)
    reporter.say(
        f"{len(ours)} points, {sum(point.efficient for point in ours)} of them proven efficient; losses are in {found.scale}; "
        f"{len(beaten)} of {uniform} uniform policies are dominated ({found.seconds:.1f} s of solving)"
    )
    if not found.finished:
        reporter.warn(
            f"the time limit of {config.time_limit:g} s ended it before all points were found; "
            "raise --time-limit for more"
        )
    reporter.say(f"carry a point out with: optimize realise {_quoted(output)}#{ours[0].name}")
    return {
        "files": files,
        "finished": found.finished,
        "seconds": found.seconds,
        "loss_scale": found.scale,
        "points": summary(found.points),
    }


def policy_named(path: Path) -> Policy:
    """The policy of a file, or of a point of a frontier: `out/frontier.arrow#p07`. The limits that a point was found under are
    nobody's targets: they stand in its settings, beside the certificate that holds for them. Raises as `read_policy` and
    `read_point`."""
    file, mark, name = str(path).rpartition("#")
    if mark and not path.exists():
        policy = read_point(Path(file), name)
        return replace(
            policy, targets=Targets(), settings={**policy.settings, "solved_for": targets_json(policy.targets)}
        )
    if path.suffix == ".arrow":
        raise UsageError(f"{path} holds many policies; name one of its points, for example {path}#p01")
    return read_policy(path)


def _written(found: Frontier, output: Path, reporter: Reporter) -> dict[str, str]:
    title = "Loss, latency and bytes of one network"
    paths = {kind: output / f"{FRONTIER}.{kind}" for kind in ("arrow", "html", "png")}
    write_frontier(paths["arrow"], found)
    write_page(paths["html"], found, title, f"optimize realise {_quoted(output)}#")
    write_atomically(paths["png"], frontier_png(found))
    reporter.say(f"written: {', '.join(map(str, paths.values()))}")
    return {kind: str(path) for kind, path in paths.items()}


def _quoted(output: Path) -> str:
    return shlex.quote(str(output / f"{FRONTIER}.arrow"))
