"""The output folder of an earlier run with fine-tuning, as what `optimize replan` begins with."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitplan.config import Config, load_config, merge, read_values
from bitplan.errors import DataError, UsageError
from bitplan.finetuning import CHECKPOINT, TRAINED, artifact_hash, origin
from bitplan.policies.policy import Policy
from bitplan.policies.policy_file import policy_hash, read_policy
from bitplan.profiles.estimators import DEFAULT, SEPARABLE
from bitplan.trained import Trained
from bitplan.user_code import require_package
from bitplan.workflow import ARTIFACT, CONFIG, NOTHING, POLICY, RESULT

if TYPE_CHECKING:
    from bitplan.policies.realise.trained_file import Origin
    from bitplan.policies.realise.warm import WarmStart

TRAINING = ("finetune", "finetune_time", "finetune_options", "train_data", "loss")
"""Keys that say how to train; of an earlier run they count only where training is asked for again."""
REPLANNED = "replanned"
"""Folder inside the earlier one where results go unless another is named."""
NOT_OFFERED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "hybrid": ((False,), "a whole captured network was fine-tuned"),
    "polish": ((0,), "the new plan is not improved by swaps"),
    "rounds": ((0,), "it plans once"),
    "compare": (((NOTHING,),), "the new network is compared with the fine-tuned one only"),
    "loss_profile": (
        (Path(SEPARABLE), Path(DEFAULT)),
        "losses are measured anew around the trained network, by single changes (separable)",
    ),
    "link_policies": ((0,), "losses near the trained network need no link"),
}
"""Options that replanning has no use for: the values that ask for nothing, and why others are refused. Those of the
earlier run's configuration are passed over."""


@dataclass(frozen=True)
class Earlier:
    """What lies in the folder: the policy and the artifact of the fine-tuned network, what the training rests on, the
    stages of its life as `result.json` has them, and the configuration."""

    folder: Path
    config: Config
    policy: Policy
    artifact: bytes
    origin: Origin
    stages: Mapping[str, Any]

    def start(self, trained: Trained, config: Config) -> WarmStart:
        """The trained network, once it is sure that model and images are those that it was trained with. Raises
        UsageError for another network, DataError for other images of the same name."""
        from bitplan.policies.realise.trained_file import load_trained

        now, before = origin(trained, self.policy, self.artifact), self.origin
        for what, mine, theirs in (
            ("network", now.network, before.network),
            ("weights", now.weights, before.weights),
        ):
            if mine != theirs:
                raise UsageError(
                    f"the {what} of the model that {self.folder / CONFIG} names ({mine[:8]}) are not those that "
                    f"{self.folder / TRAINED} was trained from ({theirs[:8]}); give the same --model and --weights"
                )
        if now.calibration != before.calibration and _same_images_asked(config, self.config):
            raise DataError(
                f"the calibration images that {config.data or 'the example'} gives have changed since {self.folder} was "
                "fine-tuned; bring them back, or name others with --data"
            )
        return load_trained(self.folder / TRAINED, trained.network)

    def stages_on(self, trained: Trained) -> dict[str, Any]:
        """The stages before fine-tuning; those measured on other test images than there are now are left out."""
        known = {
            name: self.stages[name] for name in ("planned", "recovered") if isinstance(self.stages.get(name), dict)
        }
        if origin(trained, self.policy, self.artifact).test != self.origin.test:
            known.pop("recovered", None)
        return known


def config_of(folder: Path, options: Mapping[str, Any], path: Path | None) -> Config:
    """The configuration of the earlier run with the options over it. Training is done again only where `finetune` is among
    the options. Raises UsageError where the folder has no configuration, and for options that replanning cannot honour."""
    source = path or folder / CONFIG
    if not source.exists():
        raise UsageError(f"{source} does not exist; name the output folder of `optimize --finetune ...`")
    refuse_unoffered(options)
    file = load_config(source)
    if not options.get("finetune"):
        file = {key: value for key, value in file.items() if key not in TRAINING}
    sources = dict.fromkeys(file, str(source)) | {"output": "place of replanned networks"}
    config = merge(options, {**file, "output": folder / REPLANNED}, sources)
    if config.output.resolve() == folder.resolve():
        raise UsageError(
            f"-o {config.output} would overwrite the network that replanning begins with; name another folder"
        )
    return config


def refuse_unoffered(options: Mapping[str, Any]) -> None:
    """Raises UsageError where the command line asks for what replanning does not do (docs/replanning.md)."""
    given = read_values({key: value for key, value in options.items() if key in NOT_OFFERED and value != []})
    for key, value in given.items():
        accepted, why = NOT_OFFERED[key]
        if value not in accepted:
            raise UsageError(f"--{key.replace('_', '-')} is not offered by replan: {why}; leave it out")


def read_earlier(folder: Path) -> Earlier:
    """Raises UsageError for a folder without a fine-tuned network and where torch is not installed, FileFormatError for
    damaged files."""
    require_package("torch", "replanning")
    from bitplan.policies.realise.trained_file import origin_of

    for name in (POLICY, CONFIG, ARTIFACT):
        if not (folder / name).exists():
            raise UsageError(f"{folder / name} does not exist; name the output folder of `optimize --finetune ...`")
    if not (folder / TRAINED).exists():
        raise UsageError(_not_trained(folder))
    policy, found = read_policy(folder / POLICY), origin_of(folder / TRAINED)
    if policy_hash(policy).hex() != found.policy:
        raise UsageError(
            f"{folder / POLICY} is not the policy that {TRAINED} beside it was trained under; if it was edited, carry it out "
            f"and train it with: {_realise(folder)}"
        )
    artifact = (folder / ARTIFACT).read_bytes()
    if artifact_hash(artifact) != found.artifact:
        raise UsageError(
            f"{folder / ARTIFACT} is not the network that {TRAINED} beside it holds: it was made anew without training, or is "
            f"damaged; train it again with the command that made it, or with: {_realise(folder)}"
        )
    return Earlier(
        folder,
        merge({}, load_config(folder / CONFIG)),
        policy,
        artifact,
        found,
        _stages(folder / RESULT),
    )


def _not_trained(folder: Path) -> str:
    if (folder / CHECKPOINT).exists():
        return (
            f"the fine-tuning in {folder} was interrupted, or was done by an older version; run the same command again, which "
            "goes on from its last epoch"
        )
    return f"{folder} holds no fine-tuned network ({TRAINED}); make one with: {_realise(folder)}"


def _realise(folder: Path) -> str:
    policy, config, output = (shlex.quote(str(path)) for path in (folder / POLICY, folder / CONFIG, folder))
    return f"optimize realise {policy} --config {config} --finetune 30epochs -o {output}"


def _stages(path: Path) -> Mapping[str, Any]:
    """What result.json says of plan and recovery; nothing where it is missing or damaged, for it is only shown."""
    try:
        content = json.loads(path.read_text())
        found = content.get("replanning", {}).get("stages") or content.get("finetuning") or {}
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError, AttributeError):
        return {}


def _same_images_asked(now: Config, before: Config) -> bool:
    names = ("data", "calibration_size", "seed", "resize", "crop")
    return all(getattr(now, name) == getattr(before, name) for name in names)
