"""Atomic writing: a reader finds the old file or the new one, never a part of one."""

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = ".lit-lora-"
"""Every temporary file and folder of this project begins with it, and nothing else does."""


def check_regular_files(folder: Path) -> None:
    """Check a stranger's folder before any library opens its files: a FIFO would never end.

    Raises:
        OSError: A file is a FIFO, a socket or a device, or a link to one.
    """
    for path in folder.iterdir():
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OSError(errno.EINVAL, "not a regular file: remove it", str(path))


def temporary_path(path: Path) -> Path:
    """Return an unused path beside ``path``; it keeps the name's ending."""
    return path.with_name(f"{PREFIX}{secrets.token_hex(4)}-{path.name}")


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path``, on the same file system; remove it at the end.

    The modes of what is written there follow the umask, unlike in ``tempfile``'s folders.

    Args:
        path: A file or folder that is written by moving it out of the temporary folder.

    Raises:
        OSError: The folder that holds ``path`` is missing or cannot be written to.
    """
    folder = temporary_path(path)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; it replaces ``path`` if nothing is raised.

    The new file is on the disk before the old one is replaced, and its mode follows the umask.

    Args:
        path: The file to write; its folder exists.

    Raises:
        OSError: The folder cannot be written to, or the disk is full.
    """
    new = temporary_path(path)
    new.touch(exist_ok=False)
    # Some writers replace it by a file of mode 0600.
    mode = stat.S_IMODE(new.stat().st_mode)
    try:
        yield new
        # Opened for writing, because Windows flushes no other handle; closed before it is moved,
        # because Windows moves no open file.
        with new.open("rb+") as file:
            os.fsync(file.fileno())
        new.chmod(mode)
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, with the line ends of ``text``."""
    with replacing(path) as new, new.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
