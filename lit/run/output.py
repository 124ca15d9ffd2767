"""Output of a command: it appears complete or not at all, and replaces nothing."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lit.messages import tr
from lit.run.console import print_rank0
from lit.run.lock import LOCK, FolderLock, is_locked
from lora.config import ConfigError
from lora.storage.files import PREFIX, follow_umask, temporary_folder

DIGITS = 8
"""Hexadecimal digits between the prefix and the name."""


def check_free(path: Path) -> None:
    """Check that a file or folder can be created at a path: nothing or an empty folder is there.

    Raises:
        ConfigError: The path is taken.
        OSError: The folder that would hold it cannot be written to.
    """
    _check_not_taken(path)
    # Fails now, before the work, without permission or on a full file system.
    with working_folder(path):
        pass


@contextmanager
def creating(path: Path) -> Iterator[Path]:
    """Yield a path to write a file or folder to; it moves to ``path`` if nothing is raised.

    Raises:
        ConfigError: ``path`` is taken, at the start or at the end.
        OSError: ``path`` cannot be written to, or the disk is full; the message names ``path``.
    """
    _check_not_taken(path)
    with working_folder(path) as folder:
        new = folder / path.name
        yield new
        follow_umask(new, folder.stat().st_mode)
        # Writing a model takes minutes; another command may have written there since.
        _check_not_taken(path)
        if path.exists():
            path.rmdir()
        new.rename(path)


@contextmanager
def working_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside ``path``, and remove it at the end.

    What killed commands that wrote the same ``path`` have left is removed first. Folders above
    ``path`` are created; those that stay empty are removed.

    Raises:
        OSError: The folder that holds ``path`` cannot be written to.
    """
    with existing_folder(path.parent):
        remove_leftovers(path.parent, path.name)
        # The lock tells other commands that this folder is in use.
        with temporary_folder(path) as folder, FolderLock(folder):
            yield folder


@contextmanager
def existing_folder(folder: Path) -> Iterator[None]:
    """Create a folder and those above it; at the end, remove those that are still empty."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for path in missing:
            try:
                path.rmdir()
            except OSError:
                break


def _check_not_taken(path: Path) -> None:
    if path.is_symlink() or (path.exists() and (not path.is_dir() or any(path.iterdir()))):
        raise ConfigError(tr("{path} already exists: choose another path, or remove it", path=path))


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove the temporary files and folders in a folder, except those that are in use.

    Links are neither followed nor removed.

    Args:
        folder: A folder; nothing is done if it is a link or does not exist.
        name: Only those that were to become a file or folder of this name; None for all.
    """
    if folder.is_symlink() and name is None:
        return
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        temporary = path.name.startswith(PREFIX) and path.name != LOCK
        same = name is None or path.name[len(PREFIX) + DIGITS :] == f"-{name}"
        if not (temporary and same) or path.is_symlink() or (path.is_dir() and is_locked(path)):
            continue
        try:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        except OSError:
            # Another user's, in a shared folder.
            continue
        print_rank0(tr("removed {path}, which a killed command left", path=path))
