"""A lock on a folder, which the kernel gives back when its process ends, however that ends."""

import fcntl
import os
from pathlib import Path

from lit.run.console import print_rank0
from lora.config import ConfigError


class FolderLock:
    """Keeps a folder for one process, in a ``with`` block; no file is left behind.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor: int | None = None

    def __enter__(self) -> "FolderLock":
        """Take the lock.

        Raises:
            ConfigError: Another process has it.
        """
        self.descriptor = os.open(self.path, os.O_RDONLY)
        # Worker processes, which outlive a killed run by seconds, would go on holding its lock.
        os.register_at_fork(after_in_child=self._close)
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._close()
            raise ConfigError(
                f"another run is writing to {self.path}: wait for its end, or give another "
                "--output_dir"
            ) from None
        except OSError as error:
            print_rank0(
                f"run    {self.path} has no lock ({error.strerror}): start no second run there"
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
