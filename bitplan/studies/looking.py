"""`optimize study show|best|export`: a study from its storage, without torch."""

from __future__ import annotations

from pathlib import Path

from bitplan.atomic_file import write_atomically
from bitplan.errors import BitplanError
from bitplan.optimizer.study import loaded_study, open_storage
from bitplan.optimizer.study.rows import Row, best_rows, rows_of, write_rows
from bitplan.studies.files import StudyFile, trial_policy_path


def trials(folder: Path, storage: str | None = None) -> tuple[StudyFile, list[Row]]:
    """The study of a folder and its trials; `storage`: in place of the one that the folder names, which lacks a password.
    Raises FileFormatError, UsageError and BitplanError where they cannot be read."""
    file = StudyFile.load(folder)
    study = loaded_study(open_storage(storage or file.storage_in(folder), create=False), file.name)
    return file, rows_of(study, file.objectives)


def shown(folder: Path, storage: str | None = None) -> tuple[list[Row], list[Row]]:
    """All trials, and the best ones."""
    _, rows = trials(folder, storage)
    return rows, best_rows(rows)


def best(folder: Path, output: Path | None, storage: str | None = None) -> list[Row]:
    """The best trial or, of several objectives, all that none dominates, first the one of the best first objective, whose
    policy is copied to `output`. Raises BitplanError where no trial keeps the limits."""
    _, rows = trials(folder, storage)
    found = best_rows(rows)
    if not found:
        raise BitplanError(f"no trial of {folder} is complete and keeps all limits; run more of them: optimize study")
    if output is not None:
        write_atomically(output, trial_policy_path(folder, str(found[0].number)).read_bytes())
    return found


def exported(folder: Path, output: Path, storage: str | None = None) -> int:
    """Writes all trials; how many there are."""
    file, rows = trials(folder, storage)
    write_rows(output, rows, file.objectives)
    return len(rows)
