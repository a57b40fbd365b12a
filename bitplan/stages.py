"""What the main job is made of, for whole networks and for the layers of a module (`--hybrid`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bitplan.config import Config
from bitplan.errors import UnsupportedError
from bitplan.measured import CarriedOut, carry_out
from bitplan.network import Network
from bitplan.profiles.device import DeviceProfile
from bitplan.profiles.loss import LossProfile
from bitplan.profiling import device_profile, loss_profile
from bitplan.progress import Reporter
from bitplan.trained import Trained, load_trained


@dataclass(frozen=True)
class Stages:
    """The subject goes from the first into all others; `outputs` gives a network whose outputs have the names and shapes
    of the subject's; `note` the text of LOAD.md in the result folder, if any."""

    load: Callable[[Config, Reporter], Any]
    device_profile: Callable[[Any, Config, Reporter], DeviceProfile]
    loss_profile: Callable[[Any, Config, Reporter], LossProfile]
    carry_out: Callable[..., CarriedOut]
    outputs: Callable[[Any], Network]
    note: Callable[[Config], str | None]


def stages_of(config: Config) -> Stages:
    """The stages that the configuration asks for."""
    if not config.hybrid:
        return Stages(
            _load_whole, device_profile, loss_profile, carry_out, lambda trained: trained.network, lambda _: None
        )
    from bitplan.user_code import require_package

    require_package("torch", "replacing layers of a network")
    from bitplan import hybrid

    return Stages(
        hybrid.load_hybrid,
        hybrid.device_profile,
        hybrid.loss_profile,
        hybrid.carry_out,
        lambda trained: trained.outputs_network,
        hybrid.result_note,
    )


def _load_whole(config: Config, reporter: Reporter) -> Trained:
    try:
        return load_trained(config, reporter)
    except UnsupportedError as error:
        raise UnsupportedError(
            f"{error}; or plan its convolutions and linear layers alone, with the rest left in torch: --hybrid"
        ) from error
