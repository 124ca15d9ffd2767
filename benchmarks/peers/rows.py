"""The rows of each step, in a file that every contender reads. Needs only the standard library."""

import json
import zlib
from pathlib import Path
from typing import Any, NamedTuple


class Step(NamedTuple):
    """Token ids of rows, and their labels: -100 where there is no loss."""

    ids: list[list[int]]
    labels: list[list[int]]

    @property
    def tokens(self) -> int:
        """Tokens of all rows, without padding."""
        return sum(map(len, self.ids))


def write(path: Path, steps: list[Step], **settings: Any) -> None:
    """Write steps, and the settings that a contender needs."""
    path.write_text(json.dumps({**settings, "steps": [step._asdict() for step in steps]}))


def read(path: Path) -> tuple[list[Step], dict[str, Any]]:
    """Read steps and settings."""
    settings = json.loads(path.read_text())
    return [Step(**step) for step in settings.pop("steps")], settings


def digest(ids: list[int]) -> int:
    """Return a checksum of token ids and their order, to compare between processes."""
    return zlib.crc32(",".join(map(str, ids)).encode())


def digest_of(step: Step) -> int:
    """Return the checksum of a whole step."""
    return digest([i for row in step.ids for i in row])
