"""The main job from Python: `bitplan.plan` measures and plans, `Plan.realise` carries out.

import bitplan
plan = bitplan.plan(module, (images, labels), latency="20ms", size="2MB")
plan                                   # a notebook shows its layers, predictions and certificate
result = plan.realise("out")           # out/network.bitplan, measured; result.misses says what was missed
outputs = bitplan.load("out/network.bitplan")(images[:1])   # as many at a time as `batch` says
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitplan.config import Config, merge, read_values
from bitplan.errors import UsageError
from bitplan.network import Network
from bitplan.optimizer.frontier import POINTS, Frontier, frontier
from bitplan.policies.policy import Policy
from bitplan.policies.policy_file import write_policy
from bitplan.profiles.device import DeviceProfile
from bitplan.profiles.loss import LossProfile
from bitplan.progress import Reporter
from bitplan.result import Result
from bitplan.stages import stages_of
from bitplan.trained import LOADING, captured, trained_from
from bitplan.user_code import require_package
from bitplan.workflow import ARTIFACT, DEVICE, LOSS, Job, check_output, inferred_objective, judged_and_trained

if TYPE_CHECKING:
    from torch import nn

    from bitplan.kernels.runtime import Runtime

Data = str | tuple[Any, Any] | Mapping[str, Any]
"""What `--data` names; (x, y), raw images [N, C, H, W] and labels [N] or None; or arrays named as in an .npz file."""
FROM_PYTHON = "given from Python"
"""Model and data in the configuration that a realised plan leaves, which no command can load."""
NOT_HERE = ("model", "data", "output", "hybrid", "max_drop")
"""Keys of the configuration that `plan` takes in another way, or not at all."""


@dataclass(frozen=True)
class Plan:
    """A policy that is predicted to meet the limits, and all that was measured for it."""

    policy: Policy
    job: Job

    def __repr__(self) -> str:
        predicted = self.policy.predicted
        figures = ", ".join(f"{name}={predicted[name]}" for name in ("file_bytes", "latency_ms", "loss"))
        return f"<Plan of {len(self.policy.layers)} layers, {self.policy.certificate.status}, predicted {figures}>"

    @property
    def network(self) -> Network:
        return self.job.trained.network

    @property
    def device(self) -> DeviceProfile:
        """What each step takes on this machine."""
        return self.job.device

    @property
    def loss(self) -> LossProfile:
        """What each choice costs in loss."""
        return self.job.loss

    def save(self, path: str | PathLike[str]) -> Path:
        """Writes the policy file, which `optimize realise` carries out too."""
        write_policy(Path(path), self.policy)
        return Path(path)

    def realise(self, output: str | PathLike[str] = "bitplan-out") -> Result:
        """Carries the policy out, with the recovery and fine-tuning that `plan` was given, measures it on the test images
        and this machine, and leaves artifact, policy, result and both profiles in the folder `output`."""
        config = replace(self.job.config, output=Path(output))
        check_output(config.output)
        carried = replace(self.job, config=config).carry_out(self.policy)
        result, _ = judged_and_trained(
            self.job.targets, self.job.trained, carried, config, self.job.reporter, self.job.device
        )
        self.device.save(config.output / DEVICE)
        self.loss.save(config.output / LOSS)
        return result

    def frontier(self, points: int = POINTS) -> Frontier:
        """The trade-off of loss, latency and bytes within the same limits, from what was measured."""
        config, job = self.job.config, self.job
        return frontier(
            self.network,
            job.loss,
            job.device,
            job.targets,
            job.trained.menu,
            points=points,
            threads=config.threads,
            batch=config.batch,
            time_limit=config.time_limit,
            seed=config.seed,
        )

    def _repr_html_(self) -> str:
        return self.policy._repr_html_()


def plan(
    network: nn.Module | str | PathLike[str],
    data: Data,
    *,
    latency: str | float | None = None,
    size: str | int | None = None,
    info: Mapping[str, Any] | None = None,
    quiet: bool = False,
    **options: Any,
) -> Plan:
    """Measures a trained network and this machine, and plans the most accurate policy within the limits.

    network: a torch module, or what `--model` names, files too; it is put into evaluation mode. info: of a module: mean and std of
    its input on the images' scale, resize, crop, input_shape. latency: of one inference, "20ms" or seconds; size: of the
    file, "2MB" or bytes. options: every key of `optimize.yaml` (`encodings=["int8", "int4"]`, `recovery=["strong"]`,
    `memory="4MB"` ...). quiet: no progress on standard error.
    Raises UsageError, DataError, UnsupportedError for what cannot be used, InfeasibleError where no policy meets the limits."""
    config = _configured(latency, size, options)
    reporter = Reporter(quiet=quiet)
    require_package("torch", "capturing and measuring a network")
    named = data if isinstance(data, str | Mapping) else _pair(data)
    network = str(network) if isinstance(network, PathLike) else network
    if isinstance(network, str) and info is not None:
        raise UsageError(
            "info describes a module; the function that model names returns its own, and mean and std of a model file are "
            "options of plan"
        )
    config = replace(
        config,
        model=network if isinstance(network, str) else FROM_PYTHON,
        data=named if isinstance(named, str) else FROM_PYTHON,
    )
    from bitplan.model import load_model, ready_model

    with reporter.stage("loading and capturing the network") as report:
        report(0, LOADING, "model")
        if isinstance(network, str):
            loaded = load_model(network, config.weights)
        else:
            loaded = ready_model(network, info or {}, "the network", config.weights)
        parts = captured(loaded, named, config, report)
    trained = trained_from(*parts, config, reporter)
    stages = stages_of(config)
    device = stages.device_profile(trained, config, reporter)
    loss = stages.loss_profile(trained, config, reporter)
    job = Job(config, stages, trained, device, loss, inferred_objective(config.targets), reporter)
    return Plan(job.polished(job.plan(job.targets), job.targets), job)


def load(artifact: str | PathLike[str], threads: int = 1) -> Runtime:
    """An artifact (a .bitplan file, or the folder of a result) ready to run, without torch. Raises FileFormatError for a
    damaged file, OSError where there is none."""
    from bitplan.kernels.runtime import Runtime

    path = Path(artifact)
    return Runtime.load(path / ARTIFACT if path.is_dir() else path, threads)


def _configured(latency: str | float | None, size: str | int | None, options: Mapping[str, Any]) -> Config:
    for name in NOT_HERE:
        if name in options:
            raise UsageError(f"plan takes no option {name!r}; {_instead(name)}")
    limits = {
        "target_latency": latency if latency is None or isinstance(latency, str) else f"{float(latency) * 1e3:.9g}ms",
        "budget": size if size is None or isinstance(size, str) else f"{int(size)}B",
    }
    return merge(read_values({**options, **{name: value for name, value in limits.items() if value is not None}}))


def _instead(name: str) -> str:
    if name == "output":
        return "give it to Plan.realise"
    if name in ("model", "data"):
        return "network and data are the first two arguments"
    return "it is kept by the command `optimize` alone"


def _pair(data: object) -> dict[str, Any]:
    if not isinstance(data, tuple) or len(data) != 2:
        raise UsageError(
            f"data is a {type(data).__name__}; give (images, labels), (images, None), arrays by name as in an .npz file, or a text"
        )
    x, y = data
    return {"x": x} if y is None else {"x": x, "y": y}
