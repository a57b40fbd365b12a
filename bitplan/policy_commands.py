"""`optimize run POLICY`: a policy file, edited or not, becomes an artifact by the configuration that lies beside it."""

from __future__ import annotations

from pathlib import Path

from bitplan.config import load_config, merge
from bitplan.errors import FileFormatError, UsageError
from bitplan.kernels import Runtime
from bitplan.policies.policy_file import policy_hash, read_policy, validate_against
from bitplan.progress import Reporter
from bitplan.recovery_journals import forget_recovery
from bitplan.workflow import ARTIFACT, CONFIG


def artifact_of_policy(path: Path, reporter: Reporter) -> bytes | None:
    """The artifact of a policy in a folder that the main job left: the one beside it if that carries out this very
    policy, else the policy is validated and carried out anew (in memory) on the model and data of that folder's
    configuration. None where there is no configuration.

    Raises FileFormatError or UsageError, naming layer and rule, for a policy that cannot be carried out."""
    configuration, artifact = path.parent / CONFIG, path.parent / ARTIFACT
    if not configuration.exists():
        return None
    config = merge({}, load_config(configuration))
    if config.hybrid:
        raise UsageError(
            f"{path} decides on layers inside a torch module; load it as LOAD.md beside it says, or carry an edited one "
            f"out with: optimize realise {path} --config {configuration}"
        )
    policy = read_policy(path)
    if artifact.exists() and _carries_out(artifact, policy_hash(policy)):
        return artifact.read_bytes()
    from bitplan.measured import packed, recovered
    from bitplan.trained import load_trained

    why = f"no {ARTIFACT} is beside it"
    if artifact.exists():
        why = f"it was edited since {ARTIFACT} beside it was made, or that is of another version"
    reporter.say(f"carrying {path.name} out on the model of {CONFIG}: {why}")
    if config.finetune:
        reporter.warn(f"it is not fine-tuned here; for that: optimize realise {path} --config {configuration}")
    trained = load_trained(config, reporter)
    policy = validate_against(policy, trained.network)
    found = recovered(trained, policy, config, reporter)
    forget_recovery(trained, policy, config)
    return packed(trained, policy, found.realisation, config)


def _carries_out(artifact: Path, policy: bytes) -> bool:
    """Whether an artifact carries out the policy of this hash; one that cannot be read (of an older version) does not."""
    try:
        return Runtime.load(artifact).policy_hash == policy
    except FileFormatError:
        return False
