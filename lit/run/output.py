"""What a command writes: it appears whole or not at all, and over nothing."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lora.config import ConfigError


def check_free(path: Path) -> None:
    """See that a file or folder may be made at a path: nothing is there, or an empty folder.

    Raises:
        ConfigError: Something is.
    """
    if path.is_symlink() or (path.exists() and (not path.is_dir() or any(path.iterdir()))):
        raise ConfigError(f"{path} is there already: write to another place, or remove it")


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Lend a path to write at; what was made there moves to its place if nothing was raised.

    Raises:
        ConfigError: The place is taken, at the start or by now.
    """
    check_free(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as name:
        new = Path(name) / path.name
        yield new
        # Minutes may have gone by.
        check_free(path)
        if path.exists():
            path.rmdir()
        new.rename(path)
