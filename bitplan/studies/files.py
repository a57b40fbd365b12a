"""What a study leaves in its folder for those who look at it later; needs no torch."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bitplan.atomic_file import write_atomically
from bitplan.config import Config, load_config, merge, save_resolved
from bitplan.data.load import KNOWN_SETS
from bitplan.errors import FileFormatError, UsageError
from bitplan.workflow import ARTIFACT, CONFIG, POLICY

STUDY, STORAGE = "study.json", "study.db"
FORM = "bitplan study"
VERSION = 1
TRIALS = "trials"
REALISED = "realised"
"""Folder beside a trial's policy where it is carried out."""
PATHS = ("weights", "device_profile", "loss_profile")
DATA = ("data", "train_data")


@dataclass(frozen=True)
class StudyFile:
    """Where the study is kept, its name there, and its objectives. `storage`: STORAGE alone is the file in the study's own
    folder, wherever that is moved."""

    name: str
    storage: str
    objectives: tuple[str, ...]

    def save(self, folder: Path) -> None:
        content = {"format": FORM, "version": VERSION, **asdict(self)}
        write_atomically(folder / STUDY, json.dumps(content, indent=1).encode())

    def storage_in(self, folder: Path) -> str:
        """What `open_storage` takes for the study in this folder."""
        return str(folder / STORAGE) if self.storage == STORAGE else self.storage

    @staticmethod
    def load(folder: Path) -> StudyFile:
        """Raises UsageError, with what to do, where there is none, FileFormatError for a damaged one."""
        path = folder / STUDY
        try:
            content: dict[str, Any] = json.loads(path.read_bytes())
            if content.pop("format") != FORM or content.pop("version") != VERSION:
                raise ValueError("of another kind or version")
            return StudyFile(content["name"], content["storage"], tuple(content["objectives"]))
        except OSError as error:
            raise UsageError(
                f"{folder} holds no study ({path}: {error.strerror}); name the folder of one, OUTPUT/NAME, "
                "or begin one with `optimize study`"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileFormatError(f"{path} is not the file of a study ({error}); run `optimize study` again") from None


def trial_policy_path(folder: Path, name: str) -> Path:
    """The policy file of a trial of the study in this folder, by its number. Raises UsageError where it is not there."""
    StudyFile.load(folder)
    if not name.isdecimal():
        raise UsageError(f"{folder}#{name}: trials are named by their numbers, such as {folder}#17")
    path = folder / TRIALS / f"{int(name):04d}" / POLICY
    if not path.exists():
        raise UsageError(
            f"{folder} holds no policy of trial {name}: there is none, or its worker ran with another output folder; "
            f"see the trials with: optimize study show {folder}"
        )
    return path


def trial_named(named: Path) -> Path | None:
    """The policy file that `FOLDER#17` means; None for anything else. Raises as `trial_policy_path`."""
    folder, mark, name = str(named).rpartition("#")
    return trial_policy_path(Path(folder), name) if mark and not named.exists() and Path(folder).is_dir() else None


def trial_results(named: Path) -> Path | None:
    """The folder with what came of the trial that `FOLDER#17` means: where it was carried out or, before that, that of its
    policy; None for anything else. Raises as `trial_policy_path`."""
    policy = trial_named(named)
    if policy is None:
        return None
    realised = policy.parent / REALISED
    return realised if (realised / POLICY).exists() else policy.parent


def trial_artifact(named: Path) -> Path | None:
    """The artifact of the trial that `FOLDER#17` means; None for anything else. Raises UsageError where the trial was not
    carried out."""
    folder = trial_results(named)
    if folder is None:
        return None
    if not (folder / ARTIFACT).exists():
        raise UsageError(
            f"the trial {named} was not carried out yet; do that first with: optimize realise {shlex.quote(str(named))}"
        )
    return folder / ARTIFACT


def named_trial(folder: Path) -> str | None:
    """`FOLDER#17` for the folder of a trial's policy; None for any other folder."""
    study = folder.parent.parent
    if folder.parent.name != TRIALS or not folder.name.isdecimal() or not (study / STUDY).exists():
        return None
    return f"{study}#{int(folder.name)}"


def as_tried(policy: Path, options: Mapping[str, Any], path: Path | None) -> Config:
    """The configuration that carries out the trial with this policy file: the options of the command line over the file
    behind `--config`, if one is named, over what the trial was tried with. The optimize.yaml of the current folder has no
    part in it, and results go beside the policy unless `output` is given. Raises UsageError naming the file."""
    named = {} if path is None else load_config(path)
    tried = {**load_config(policy.parent / CONFIG), "output": policy.parent / REALISED}
    sources = dict.fromkeys(tried, str(policy.parent / CONFIG)) | {"output": "place of realised trials"}
    sources |= dict.fromkeys(named, str(path))
    return merge(options, {**tried, **named}, sources)


def save_tried(folder: Path, config: Config) -> None:
    """Writes the configuration that a trial is tried with to its folder; it holds from any folder, for paths of files that
    there are become absolute ones."""
    paths: dict[str, Any] = {n: path.absolute() for n in PATHS if (path := getattr(config, n)) and path.exists()}
    data: dict[str, Any] = {n: _absolute(spec) for n in DATA if (spec := getattr(config, n))}
    save_resolved(folder / CONFIG, replace(config, **paths, **data, output=(folder / REALISED).absolute()))


def _absolute(data: str) -> str:
    """A data set (`file.npz`, `DIR`, `cifar10:DIR`) whose file or folder exists, by its absolute path; others as they are."""
    name, _, place = data.partition(":")
    if name in KNOWN_SETS and place:
        return f"{name}:{Path(place).absolute()}"
    return str(Path(data).absolute()) if Path(data).exists() else data
