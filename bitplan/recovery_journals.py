"""What an interrupted recovery goes on from, kept in the cache: one journal for each policy that is carried out."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bitplan.config import Config
from bitplan.errors import BusyError
from bitplan.policies.policy import Policy
from bitplan.policies.policy_file import policy_hash
from bitplan.profiles.journal import Journal
from bitplan.profiles.loss import cache_folder
from bitplan.recovery_names import TUNE
from bitplan.trained import Trained

if TYPE_CHECKING:
    from bitplan.policies.realise.warm import WarmStart

KEPT_DAYS = 14
"""After which a journal that nobody went on from is removed."""


def journal_path(trained: Trained, policy: Policy, config: Config, warm: WarmStart | None = None) -> Path:
    """Where this realisation keeps what is finished."""
    return cache_folder() / "recovery" / f"{recovery_key(trained, policy, config, warm)}.journal"


@contextmanager
def recovery_journal(path: Path, *, keep: bool) -> Iterator[Journal | None]:
    """What the realisation goes on from, and adds to; none where the cache cannot be written or another process carries the
    same policy out, for all that is lost then is going on. Behind the realisation it is removed, unless a training
    follows (`keep`), which may be interrupted as well."""
    journal = None
    with suppress(BusyError, OSError):
        _remove_old(path.parent)
        journal = Journal(path, path.stem)
    if journal is None:
        yield None
        return
    with journal:
        yield journal
        if not keep:
            path.unlink(missing_ok=True)


def forget_recovery(trained: Trained, policy: Policy, config: Config, warm: WarmStart | None = None) -> None:
    """Removes the journal of a realisation that nobody will go on from."""
    with suppress(OSError):
        journal_path(trained, policy, config, warm).unlink(missing_ok=True)


def recovery_key(trained: Trained, policy: Policy, config: Config, warm: WarmStart | None = None) -> str:
    """All that a realisation depends on."""
    from bitplan.profiles.measure_loss import CODE, profile_hashes

    sources = {name: CODE[name] for name in ("bitplan", "bitplan.encodings", "bitplan.policies.realise")}
    hashes = profile_hashes(trained.network, trained.weights, trained.data.calibration_x, sources=sources)
    steps = config.recovery_steps
    tuned = [config.tune_epochs] if TUNE in steps else []
    beginning = [warm.content_hash] if warm else []
    text = json.dumps([hashes, policy_hash(policy).hex(), steps, config.ranges, *tuned, *beginning], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _remove_old(folder: Path) -> None:
    oldest = time.time() - 86_400 * KEPT_DAYS
    for path in folder.glob("*.journal*"):  # locks of killed processes too
        with suppress(OSError):
            if path.stat().st_mtime < oldest:
                path.unlink()
