"""The files that a name stands for; of a folder, which train, and what is passed over."""

import re
from pathlib import Path
from typing import NamedTuple

from data.messages import tr, tr_mark
from data.readers.hub import PREFIX
from data.readers.identify import SUFFIXES, identify, suffix_of
from data.types import DataError

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "eval"),
    "test": ("test", "testing"),
}
SHARD = re.compile(r"[-_.]?\d+([-_]of[-_]\d+)?$")
SAVED, SAVED_SPLITS = "dataset_info.json", "dataset_dict.json"
"""What ``datasets`` writes into a folder with one data set, and with one for each split."""

WITH_FOLDERS = tr_mark(
    "{path} is a folder without {suffixes} files; its folders are {folders}: give one"
)


class Found(NamedTuple):
    """The parts that a name stands for."""

    train: list[str]
    validation: list[str] = []  # noqa: RUF012  a NamedTuple's default, never changed
    notes: list[str] = []  # noqa: RUF012
    """What is left out, and what validates."""


def expand(name: str) -> Found:
    """Return the parts of a folder, or the name of a file or of a hub data set itself.

    Raises:
        DataError: There is no such file, or it is of an unknown type.
    """
    path = Path(name)
    if name.startswith(PREFIX):
        return Found([name])
    if path.is_dir():
        return expand_folder(path)
    if not path.is_file():
        raise DataError(_describe_missing(name, path.parent))
    if not suffix_of(name):
        identify(path)  # knows more about some files
        raise DataError(
            tr(
                "{name}: the name must end in one of {suffixes}; the first four may be followed "
                "by .gz",
                name=name,
                suffixes=", ".join(SUFFIXES),
            )
        )
    return Found([name])


def _describe_missing(name: str, folder: Path) -> str:
    """Return the error about a missing file, with the files that there are."""
    if not folder.is_dir():
        return tr("{name} does not exist, nor does {folder}", name=name, folder=folder)
    names = sorted(file.name for file in folder.iterdir() if suffix_of(file.name))
    if not names:
        return tr("{name} does not exist", name=name)
    shown = ", ".join(names[:8])
    return tr("{name} does not exist; {folder} has {names}", name=name, folder=folder, names=shown)


def is_saved(path: Path) -> bool:
    """Return whether a folder is a data set that ``save_to_disk`` wrote."""
    return (path / SAVED).is_file() and (path / "state.json").is_file()


def expand_folder(path: Path) -> Found:
    """Return the parts of a folder.

    Names that begin or end with train, validation (val, valid, dev, eval) or test are honoured.

    Raises:
        DataError: It holds no data.
    """
    if is_saved(path):
        return Found([str(path)])
    if (path / SAVED_SPLITS).is_file():
        parts = [entry for entry in path.iterdir() if is_saved(entry)]
    else:
        parts = [entry for entry in path.iterdir() if _is_data_file(entry)]
    folders = sorted(
        entry.name
        for entry in path.iterdir()
        if entry.is_dir() and not entry.name.startswith(".") and entry not in parts
    )
    if not parts:
        text = WITH_FOLDERS if folders else tr_mark("{path} is a folder without {suffixes} files")
        shown = ", ".join(folders[:8])
        raise DataError(tr(text, path=path, suffixes=", ".join(SUFFIXES), folders=shown))
    notes = (
        [tr("not read: the folders {folders}", folders=", ".join(folders[:8]))] if folders else []
    )
    split: dict[str, list[str]] = {name: [] for name in ("", *SPLITS)}
    for part in sorted(parts):
        split[_split_of(part)].append(str(part))
    train = sorted(split["train"] + split[""])
    if not train:
        # A folder of test files alone was given for these.
        return Found(sorted(map(str, parts)), [], notes)
    for name in ("validation", "test"):
        if split[name]:
            names = ", ".join(Path(part).name for part in split[name])
            notes.append(
                tr("{names}: not for training, as the name says {name}", names=names, name=name)
            )
    return Found(train, split["validation"], notes)


def _split_of(path: Path) -> str:
    stem = path.name.lower()
    while suffix_of(stem) or stem.endswith(".gz"):
        stem = stem.rpartition(".")[0]
    words = re.split(r"[-_. ]+", SHARD.sub("", stem))
    for name, words_of_it in SPLITS.items():
        if words[0] in words_of_it or words[-1] in words_of_it:
            return name
    return ""


def _is_data_file(path: Path) -> bool:
    """Return whether a file is data: not hidden, and no lock file of an Office program."""
    return path.is_file() and bool(suffix_of(path.name)) and not path.name.startswith((".", "~$"))
