"""The folder of a comparison: complete or as before, and without replacing a person's files."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lit.messages import tr
from lit.run.output import existing_folder, working_folder
from lora.config import ConfigError

RESULT = "report.json"
FILES = (
    *(RESULT, "report.md", "report.html", "base_answers.txt", "tuned_answers.txt"),
    *("training_loss.png", "comparison_table.png", "dataset_example.png"),
)
"""Everything that a comparison writes. The first file tells that a comparison wrote the others."""
KEYS = {"adapter", "base", "data_source", "forgetting", "answers", "pictures"}
"""Keys of report.json in every version."""
MAX_RESULT = 2**28
"""Bytes of a report.json that is read; one with a thousand long answers has a few million."""


@contextmanager
def replacing_comparison(folder: Path, inputs: Sequence[Path | None]) -> Iterator[Path]:
    """Yield a folder to write a comparison to; its files move to ``folder`` if nothing is raised.

    An earlier comparison in ``folder`` is replaced; other files there stay.

    Args:
        folder: The comparison's folder.
        inputs: Files that the comparison reads.

    Raises:
        ConfigError: A file of a person would be replaced, or ``folder`` is a file.
        OSError: ``folder`` cannot be written to, or the disk is full.
    """
    _check(folder, inputs)
    with working_folder(folder) as new, existing_folder(folder):
        yield new
        _check(folder, inputs)
        for name in FILES:
            if (new / name).exists():
                (new / name).replace(folder / name)
            else:
                (folder / name).unlink(missing_ok=True)


def _check(folder: Path, inputs: Sequence[Path | None]) -> None:
    if os.path.lexists(folder) and not folder.is_dir():
        raise ConfigError(tr("output_dir {folder} is a file: choose a folder", folder=folder))
    own = {os.path.realpath(folder / name) for name in FILES}
    for path in inputs:
        if path is not None and os.path.realpath(path) in own:
            raise ConfigError(
                tr(
                    "{path} would be replaced by this comparison: copy it to another folder, or "
                    "choose another --output_dir",
                    path=path,
                )
            )
    taken = [name for name in FILES if os.path.lexists(folder / name)]
    regular = all((folder / name).is_file() and not (folder / name).is_symlink() for name in taken)
    if taken and not (regular and _is_comparison(folder)):
        raise ConfigError(
            tr(
                "{folder} holds {taken}, which no comparison wrote: move them away, or choose "
                "another --output_dir",
                folder=folder,
                taken=", ".join(taken),
            )
        )


def _is_comparison(folder: Path) -> bool:
    path = folder / RESULT
    if not path.is_file() or path.stat().st_size > MAX_RESULT:
        return False
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return False
    return isinstance(result, dict) and result.keys() >= KEYS
