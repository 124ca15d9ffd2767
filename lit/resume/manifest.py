"""The manifest of a folder of checkpoints: the SHA-256 of each, so that a flipped bit is found."""

import hashlib
import json
from pathlib import Path

from lora.config import ConfigError
from lora.files import write_text

MANIFEST = "manifest.json"


class Manifest:
    """The digests of a folder's files.

    A digest is written down before its file takes its place, and the one before is kept until the
    next: at whatever moment a run is killed, the file that lies there is one of those named.

    Args:
        folder: With the files; the manifest lies beside them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / MANIFEST
        self._placed: dict[str, str] = {}

    def place(self, new: Path, path: Path) -> None:
        """Put a finished file in its place, on the same file system.

        Args:
            new: Where it was written.
            path: Its place, in the manifest's folder.
        """
        digest = _sha256(new)
        named = {n: known for n, known in self._read().items() if (self.folder / n).is_file()}
        last = self._placed.get(path.name)
        before = [last] if last else named.get(path.name, [])
        named[path.name] = [*before, digest]
        write_text(self.path, json.dumps(named, indent=2) + "\n")
        new.replace(path)
        self._placed[path.name] = digest

    def check(self, path: Path) -> None:
        """Compare a file with its digests; one that the manifest does not name passes.

        Raises:
            ConfigError: The bytes are not those that were written.
        """
        known = self._read().get(path.name)
        if known and _sha256(path) not in known:
            raise ConfigError(
                f"{path} is not what was written: its SHA-256 is not that of {MANIFEST}. "
                "Go on from another checkpoint"
            )

    def _read(self) -> dict[str, list[str]]:
        try:
            return json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError:
            raise ConfigError(
                f"{self.path} is broken. Remove it, and checkpoints are used without comparing"
            ) from None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
