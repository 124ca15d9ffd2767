"""Output of a command: it appears complete or not at all, and replaces nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lora.config import ConfigError
from lora.storage.files import temporary_folder


def check_free(path: Path) -> None:
    """Check that a file or folder can be created at a path: nothing or an empty folder is there.

    Raises:
        ConfigError: The path is taken.
    """
    if path.is_symlink() or (path.exists() and (not path.is_dir() or any(path.iterdir()))):
        raise ConfigError(f"{path} already exists: choose another path, or remove it")


@contextmanager
def creating(path: Path) -> Iterator[Path]:
    """Yield a path to write a file or folder to; it moves to ``path`` if nothing is raised.

    Raises:
        ConfigError: ``path`` is taken, at the start or at the end.
    """
    check_free(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(path) as folder:
        new = folder / path.name
        yield new
        # Writing a model takes minutes; another command may have written there since.
        check_free(path)
        if path.exists():
            path.rmdir()
        new.rename(path)
