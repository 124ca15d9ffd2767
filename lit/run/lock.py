"""A lock on a folder. The system releases it when its process ends, however it ends."""

import contextlib
import errno
from pathlib import Path

from filelock import FileLock, Timeout

from lit.messages import tr
from lit.run.console import print_rank0
from lora.config import ConfigError
from lora.storage.files import PREFIX

LOCK = f"{PREFIX}lock"
"""The file in a folder that is locked. A killed process leaves it behind, unlocked."""
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.ELOOP)
"""Errors of a file system without locks, or of a lock file that is a person's link."""


class FolderLock:
    """A lock that keeps a folder to one process, as a context manager.

    The lock belongs to the process that took it: a worker that it forks or spawns holds none, so
    workers that outlive a killed run by seconds do not block the run that resumes it. filelock
    closes the descriptor in forked processes, and Python does in spawned ones.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = FileLock(path / LOCK, timeout=0, thread_local=False, fallback_to_soft=False)

    def __enter__(self) -> "FolderLock":
        """Take the lock.

        Raises:
            ConfigError: Another process holds it.
            OSError: The folder cannot be written to; the message names the folder.
        """
        try:
            self.lock.acquire()
        except Timeout:
            raise ConfigError(
                tr(
                    "another run is writing to {path}: wait until it ends, or choose another "
                    "--output_dir",
                    path=self.path,
                )
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise OSError(error.errno, error.strerror, str(self.path)) from None
            print_rank0(
                tr(
                    "run    {path} cannot be locked ({strerror}): do not start a second run there",
                    path=self.path,
                    strerror=error.strerror,
                )
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self.lock.is_locked:
            # Removed before it is released: afterwards it may be another run's. Windows refuses
            # to remove an open file; there filelock removes it.
            with contextlib.suppress(OSError):
                (self.path / LOCK).unlink()
            self.lock.release()


def is_locked(path: Path) -> bool:
    """Return whether a live process holds the lock of a folder, or may hold it."""
    lock = FileLock(path / LOCK, timeout=0, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except (Timeout, OSError):
        # Also where nobody can know: a file system without locks, or another user's folder.
        return True
    lock.release()
    return False
