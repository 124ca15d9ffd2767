"""Atomic writing: a reader finds the old file or the new one, never a part of one."""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = ".lit-lora-"
"""Every temporary file and folder of this project begins with it, and nothing else does."""


def temporary_path(path: Path) -> Path:
    """Return an unused path beside ``path``; it keeps the name's ending."""
    return path.with_name(f"{PREFIX}{secrets.token_hex(4)}-{path.name}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; it takes the place of ``path`` if nothing is raised.

    The new file is on the disk before the old one goes, and its mode follows the umask.

    Args:
        path: The file to write; its folder exists.

    Raises:
        OSError: The folder cannot be written to, or the disk is full.
    """
    new = temporary_path(path)
    new.touch(exist_ok=False)
    # Some writers put a file of mode 0600 there.
    mode = stat.S_IMODE(new.stat().st_mode)
    try:
        yield new
        # Opened for writing: Windows flushes no other handle.
        with new.open("rb+") as file:
            os.fsync(file.fileno())
        new.chmod(mode)
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, line ends as they are given."""
    with replacing(path) as new, new.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
