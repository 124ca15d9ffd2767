"""Atomic writing: a reader finds the old file or the new one, never a part of one."""

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from lora.messages import tr

PREFIX = ".lit-lora-"
"""Every temporary file and folder of this project begins with it, and nothing else does."""
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Errors of a write, for which Python does not name the file."""
RUST_ERROR = re.compile(r"([^:]+) \(os error (\d+)\)")
"""How safetensors and tokenizers, which are written in Rust, report an error of a write."""


def check_regular_files(folder: Path) -> None:
    """Check a stranger's folder before any library opens its files: a FIFO would never end.

    Raises:
        OSError: A file is a FIFO, a socket or a device, or a link to one.
    """
    for path in folder.iterdir():
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OSError(errno.EINVAL, tr("not a regular file: remove it"), str(path))


def temporary_path(path: Path) -> Path:
    """Return an unused path beside ``path``; it keeps the name's ending."""
    return path.with_name(f"{PREFIX}{secrets.token_hex(4)}-{path.name}")


@contextlib.contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path``, on the same file system; remove it at the end.

    Its mode follows the umask, unlike that of ``tempfile``'s folders.

    Args:
        path: A file or folder that is written by moving it out of the temporary folder.

    Raises:
        OSError: The folder that holds ``path`` is missing or cannot be written to, or the disk is
            full; the message names ``path``.
    """
    folder = temporary_path(path)
    try:
        with _naming(path, folder):
            folder.mkdir()
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; it replaces ``path`` if nothing is raised.

    The new file is on the disk before the old one is replaced, and its mode follows the umask.

    Args:
        path: The file to write; its folder exists.

    Raises:
        OSError: The folder cannot be written to, or the disk is full; the message names ``path``.
    """
    new = temporary_path(path)
    try:
        with _naming(path, new):
            new.touch(exist_ok=False)
            # Some writers replace it by a file of mode 0600.
            mode = stat.S_IMODE(new.stat().st_mode)
            yield new
            # Opened for writing, because Windows flushes no other handle; closed before it is
            # moved, because Windows moves no open file.
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


def append_line(path: Path, line: str) -> None:
    """Append a line to a text file in UTF-8; the file is created if needed.

    The line starts on a line of its own, also after a last line without a line end. If it cannot
    be written completely, the file stays as it was.

    Raises:
        OSError: The file cannot be written to, or the disk is full.
    """
    created = not path.exists()
    try:
        with path.open("ab+", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 1, 0))
            start = b"\n" if size and file.read(1) != b"\n" else b""
            data = start + line.encode() + b"\n"
            try:
                while data:
                    data = data[file.write(data) or 0 :]
            except OSError:
                file.truncate(size)
                raise
    except OSError:
        if created:
            # Closed before: Windows removes no open file.
            with contextlib.suppress(OSError):
                path.unlink()
        raise


def follow_umask(path: Path, folder_mode: int) -> None:
    """Give a file, or all files and folders of a folder, the modes that the umask asks for.

    Some writers set other modes: safetensors 0600, ``shutil.copy`` those of the source.

    Args:
        path: A file or folder; links in it are not followed.
        folder_mode: The mode of a folder that was just created: it tells the umask, which cannot
            be read without changing it.
    """
    folder_mode = stat.S_IMODE(folder_mode)
    names = [path]
    for parent, folders, files in os.walk(path):
        names += [Path(parent, name) for name in (*folders, *files)]
    for name in names:
        if not name.is_symlink():
            name.chmod(folder_mode if name.is_dir() else folder_mode & 0o666)


@contextlib.contextmanager
def _naming(path: Path, new: Path) -> Iterator[None]:
    """Raise errors of writing ``new``, a temporary path, as an OSError that names ``path``."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError):
            number, text = error.errno, error.strerror
            names = [name for name in (error.filename, error.filename2) if name is not None]
            unnamed = not names and number in DISK_ERRORS
            if not (unnamed or any(str(name).startswith(str(new)) for name in names)):
                raise
        elif match := RUST_ERROR.search(str(error)):
            text, number = match[1].strip(), int(match[2])
            # Windows numbers its errors in another way; Python translates the fourth argument.
            raise OSError(number, text, str(path), number) from error
        else:
            raise
        raise OSError(number, text, str(path)) from error
