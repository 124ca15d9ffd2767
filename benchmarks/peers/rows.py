"""The rows of each step, as every contender reads them; only the standard library is needed."""

import json
import zlib
from pathlib import Path
from typing import Any, NamedTuple


class Step(NamedTuple):
    """Rows in tokens, with -100 where nothing is to be learned."""

    ids: list[list[int]]
    labels: list[list[int]]

    @property
    def tokens(self) -> int:
        """Of all rows, without padding."""
        return sum(map(len, self.ids))


def write(path: Path, steps: list[Step], **settings: Any) -> None:
    """Write the steps, and what else a contender must know."""
    path.write_text(json.dumps({**settings, "steps": [step._asdict() for step in steps]}))


def read(path: Path) -> tuple[list[Step], dict[str, Any]]:
    """Read them again."""
    settings = json.loads(path.read_text())
    return [Step(**step) for step in settings.pop("steps")], settings


def digest(ids: list[int]) -> int:
    """A number by which two processes see that they have the same tokens in the same order."""
    return zlib.crc32(",".join(map(str, ids)).encode())


def digest_of(step: Step) -> int:
    """The same of a whole step."""
    return digest([i for row in step.ids for i in row])
