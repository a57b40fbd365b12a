"""Where a study is kept: SQLite by default, any database by URL, or a journal file; all of them are Optuna's own forms."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from bitplan.errors import BitplanError, UsageError

HEARTBEAT = 20
"""Seconds between two signs of life of a trial in a database."""
GRACE = 120
"""Seconds without one after which it counts as lost, and another worker repeats it."""
SQLITE_TIMEOUT = 60
"""Seconds that a worker waits for another one's writing."""
JOURNAL = "journal:"
HIDDEN = ":***@"
"""In place of a password."""
SUFFIXES = {".db": "sqlite", ".sqlite": "sqlite", ".sqlite3": "sqlite", ".log": "journal", ".journal": "journal"}
FORMS = "an SQLite file (study.db), a journal file (study.log, journal:PATH) or the URL of a database"


@dataclass(frozen=True)
class Place:
    """A storage that was opened. `url` is what optuna-dashboard and Optuna's own commands take; `file`: the local file, if
    it is one."""

    storage: Any
    url: str
    file: Path | None

    @property
    def shown(self) -> str:
        """The URL without its password."""
        return self.url if self.file is not None else make_url(self.url).render_as_string(hide_password=True)

    @property
    def recorded(self) -> str:
        """What `open_storage` takes from any folder: `shown`, and for a journal file its kind, whatever its ending."""
        return f"{JOURNAL}{self.url}" if self.url == str(self.file) else self.shown


def open_storage(text: str, create: bool = True) -> Place:
    """Opens it, or creates it where `create` is true; else a local file is left as it is. Raises UsageError for a text of no
    known form, BitplanError where it cannot be opened."""
    if HIDDEN in text:
        raise UsageError(f"the password of the storage {text!r} is not kept; give the whole URL with --storage")
    with quiet(), _explained(text):
        url, file = _form(text)
        if file is not None:
            if create:
                file.parent.mkdir(parents=True, exist_ok=True)
            elif not file.exists():
                raise BitplanError(
                    f"the storage {file} does not exist; if it was moved, name its new place with --storage"
                )
        if url == str(file):
            return Place(JournalStorage(JournalFileBackend(url)), url, file)
        storage = RDBStorage(
            url,
            engine_kwargs={} if file is None else {"connect_args": {"timeout": SQLITE_TIMEOUT}},
            heartbeat_interval=HEARTBEAT,
            grace_period=GRACE,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
            skip_table_creation=not create,
        )
        return Place(storage, url, file)


def loaded_study(place: Place, name: str, sampler: Any = None, pruner: Any = None) -> Any:
    """An Optuna study that exists. Raises UsageError, with the names that there are, where it does not."""
    with quiet():
        try:
            return optuna.load_study(study_name=name, storage=place.storage, sampler=sampler, pruner=pruner)
        except KeyError:
            known = ", ".join(optuna.get_all_study_names(place.storage)) or "none"
            raise UsageError(f"{place.shown} holds no study {name!r}; its studies: {known}") from None


@contextmanager
def quiet() -> Iterator[None]:
    """Neither Optuna's log nor its warnings about parts that it calls experimental."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _form(text: str) -> tuple[str, Path | None]:
    """The URL and, of a local file, its absolute path; of a journal file the URL is the path."""
    if text.startswith(JOURNAL) and text != JOURNAL:
        return _journal(text.removeprefix(JOURNAL))
    if "://" in text:
        url = make_url(text)
        if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith((":", "file:")):
            return text, None
        file = Path(url.database).absolute()
        return url.set(database=str(file)).render_as_string(hide_password=False), file
    kind = SUFFIXES.get(Path(text).suffix)
    if kind is None:
        raise UsageError(f"storage {text!r} is of no known kind; give {FORMS}")
    file = Path(text).absolute()
    return _journal(text) if kind == "journal" else (f"sqlite:///{file}", file)


def _journal(path: str) -> tuple[str, Path]:
    file = Path(path).absolute()
    return str(file), file


@contextmanager
def _explained(text: str) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, StorageInternalError, ImportError, ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BitplanError(f"the storage {text!r} cannot be opened: {first}; give {FORMS}") from error
