"""A lock on a folder. The kernel releases it when its process ends, even by SIGKILL."""

import fcntl
import os
from pathlib import Path

from lit.run.console import print_rank0
from lora.config import ConfigError


class FolderLock:
    """A lock that keeps a folder to one process, as a context manager; it creates no file.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor: int | None = None

    def __enter__(self) -> "FolderLock":
        """Take the lock.

        Raises:
            ConfigError: Another process holds it.
        """
        self.descriptor = os.open(self.path, os.O_RDONLY)
        # Data loader workers inherit the lock, and outlive a killed run by seconds.
        os.register_at_fork(after_in_child=self._close)
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._close()
            raise ConfigError(
                f"another run is writing to {self.path}: wait until it ends, or choose another "
                "--output_dir"
            ) from None
        except OSError as error:
            print_rank0(
                f"run    {self.path} cannot be locked ({error.strerror}): do not start a second "
                "run there"
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
