"""Where the trials of a search are stored: a journal file, or a database that processes share."""

import re
import time
from pathlib import Path

from filelock import FileLock
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.exc import DBAPIError

from lit.messages import tr
from lora.config import ConfigError

JOURNAL = "trials.journal"
"""The journal in a search's folder, if no other storage is named."""
RETRIES = (0.2, 0.5, 1.0)
"""Seconds to wait before a database is opened again."""


class JournalLock(JournalFileOpenLock):
    """A lock that the system releases when its process ends, however it ends.

    Optuna's own are files that a killed process leaves behind, and that count for half a minute.

    Args:
        path: The journal.
    """

    def __init__(self, path: Path) -> None:
        lock = path.with_name(f"{path.name}.lock")
        super().__init__(str(path))
        self.path, self._held = path, FileLock(lock, fallback_to_soft=False)

    def acquire(self) -> bool:
        """Wait for the lock, and remove a line that a killed process did not finish."""
        self._held.acquire()
        with self.path.open("r+b") as file:
            content = file.read()
            # The next line would be appended to it, and no process could read the journal.
            file.truncate(content.rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        """Release the lock."""
        self._held.release()


def open_storage(storage: str | None, folder: Path) -> BaseStorage:
    """Open the storage of a search; it is created if needed.

    Args:
        storage: A URL, such as sqlite:///trials.db, or a journal file; None for the one in
            ``folder``.
        folder: The search's folder.

    Raises:
        ConfigError: It cannot be opened.
    """
    if storage and "://" in storage:
        return _open_database(storage)
    path = Path(storage) if storage else folder / JOURNAL
    if path.is_dir():
        raise ConfigError(
            tr("--storage {path} is a folder: give a file, or the URL of a database", path=path)
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return JournalStorage(JournalFileBackend(str(path), JournalLock(path)))
    except (ValueError, KeyError, TypeError):
        raise ConfigError(tr("{path} is no journal of a search", path=path)) from None


def _open_database(url: str) -> BaseStorage:
    shown = without_password(url)
    try:
        return _with_tables(url)
    except ImportError as error:
        raise ConfigError(
            tr(
                "--storage {url} needs the package {package}: pip install {package}",
                url=shown,
                package=error.name or "sqlalchemy",
            )
        ) from None
    # The drivers of databases have no common error.
    except Exception as error:
        reason = (str(getattr(error, "orig", None) or error).splitlines() or [""])[0]
        raise ConfigError(
            tr(
                "--storage {url} cannot be opened: {reason}. Give a file, or a URL such as "
                "sqlite:///trials.db or postgresql://USER:PASSWORD@HOST/NAME",
                url=shown,
                reason=reason.replace(url, shown),
            )
        ) from None


def _with_tables(url: str) -> RDBStorage:
    """Open a database. Of two processes that create its tables, one fails, and tries again."""
    for seconds in RETRIES:
        try:
            return RDBStorage(url)
        except (DBAPIError, StorageInternalError):
            time.sleep(seconds)
    return RDBStorage(url)


def without_password(url: str) -> str:
    """Return a URL as it may be printed."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:…@", url)
