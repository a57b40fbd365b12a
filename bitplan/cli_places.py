"""The run folders of commands: where they keep record and log of what they do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bitplan.config import Config

PROFILED = "network.json"
"""What `optimize profile` leaves in every folder."""


def main_job(config: Config, own: Mapping[str, Any]) -> Path | None:
    return None if own["version"] else config.output


def written(config: Config, own: Mapping[str, Any]) -> Path | None:
    """The output folder."""
    return config.output


def profiled(config: Config, own: Mapping[str, Any]) -> Path | None:
    """The output folder; profiles of --hybrid are refused."""
    return None if config.hybrid else config.output


def planned(config: Config, own: Mapping[str, Any]) -> Path | None:
    """The output folder, by default that of the profiles; none where those are missing: nothing is made in its place."""
    folder: Path = own["folder"]
    if not (folder / PROFILED).exists():
        return None
    return folder if config.output == Config().output else config.output


def replanned(config: Config, own: Mapping[str, Any]) -> Path | None:
    """The output folder; none where there is no earlier run."""
    return config.output if own["folder"].is_dir() else None


def studied(config: Config, own: Mapping[str, Any]) -> Path | None:
    """The folder of the study; none for a name that is refused."""
    name = own["name"]
    return config.output / name if name and Path(name).name == name and name not in (".", "..") else None
