"""The SHA-256 of each checkpoint in a folder, to detect a file that has changed."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lit.messages import tr
from lora.config import ConfigError
from lora.storage.files import replacing, write_text

MANIFEST = "manifest.json"


class Manifest:
    """The digests of a folder's files.

    The manifest gets a file's digest before the file is replaced, and keeps the digest of the old
    file until the next time. So whenever a run is killed, the manifest has the digest of the file
    that is in the folder.

    Args:
        folder: The folder of the files and of the manifest.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / MANIFEST
        self._current: dict[str, str] = {}
        """Digests of the files that this process has written."""

    @contextmanager
    def replacing(self, path: Path) -> Iterator[Path]:
        """Yield a temporary path to write to; it replaces ``path`` if nothing is raised.

        Args:
            path: A file in the manifest's folder.
        """
        with replacing(path) as new:
            yield new
            digest = _sha256(new)
            # Forget files that were removed.
            digests = {n: kept for n, kept in self._read().items() if (self.folder / n).is_file()}
            current = self._current.get(path.name)
            old = [current] if current else digests.get(path.name, [])
            digests[path.name] = [*old, digest]
            write_text(self.path, json.dumps(digests, indent=2) + "\n")
        self._current[path.name] = digest

    def check(self, path: Path) -> None:
        """Compare a file with its digests. A file that the manifest does not list passes.

        Raises:
            ConfigError: The file has changed since it was written.
        """
        digests = self._read().get(path.name)
        if digests and _sha256(path) not in digests:
            raise ConfigError(
                tr(
                    "{path} has changed since it was written: its SHA-256 is not the one in "
                    "{manifest}. Resume from another checkpoint",
                    path=path,
                    manifest=MANIFEST,
                )
            )

    def _read(self) -> dict[str, list[str]]:
        try:
            return json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError:
            raise ConfigError(
                tr(
                    "{path} is not valid JSON. Remove it to use the checkpoints unchecked",
                    path=self.path,
                )
            ) from None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
