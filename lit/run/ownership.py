"""What a run owns: the files and folders that it writes, and that only a run may replace."""

import json
import os
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from lit.run.lock import LOCK
from lit.run.metrics_file import COLUMNS
from lora.storage.files import PREFIX, write_text

MARKER = "lit-lora.json"
"""The file that marks a folder as a run's; it is written first."""
MARK = {"lit-lora": "run", "version": 1}
TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("chat_template.jinja", "additional_chat_templates/*.jinja", "tokenizer.model"),
    *("vocab.json", "vocab.txt", "vocab-src.json", "vocab-tgt.json", "target_vocab.json"),
    *("entity_vocab.json", "merges.txt", "dict.txt", "bpe.codes", "prophetnet.tokenizer"),
    *("spiece.model", "spm.model", "spm_char.model", "source.spm", "target.spm"),
    *("sentencepiece.model", "sentencepiece.bpe.model", "tekken.json", "normalizer.json"),
    *("byte_maps.json", "emoji.json", "word_pronunciation.json", "word_shape.json"),
)
"""The files of any tokenizer of transformers."""
ADAPTER = ("adapter_model.safetensors", "adapter_config.json", "README.md", *TOKENIZER)
OWNED: dict[str, tuple[str, ...]] = {
    "config.yaml": (),
    "metrics.csv": (),
    "validation.jsonl": (),
    "loss.png": (),
    "adapter": ADAPTER,
    "checkpoints": ("*.ckpt", "manifest.json"),
    "tensorboard": ("events.out.tfevents.*", "hparams.yaml"),
}
"""The one list of what a run owns: its files, and its folders with the files in them.

While a run writes to its folder, the folder also has ``LOCK``, which holds nothing.
"""
MAX_JSON = 2**20
"""Bytes of a JSON file that is read; ours have far fewer."""
DIGEST = re.compile(r"[0-9a-f]{64}")


def present(folder: Path) -> list[str]:
    """Return the names in a folder that a run would write, and that are taken.

    An empty folder does not count, nor does a marker of ours.
    """
    names = [name for name in OWNED if _is_taken(folder / name)]
    marker = folder / MARKER
    return [*names, MARKER] if _is_taken(marker) and _read_json(marker) is None else names


def is_run(folder: Path) -> bool:
    """Return whether a run wrote a folder.

    Older versions wrote no marker: metrics.csv with our header, or a manifest of checkpoints,
    counts too.
    """
    mark = _read_json(folder / MARKER)
    if isinstance(mark, dict) and mark.get("lit-lora") == MARK["lit-lora"]:
        return True
    metrics, start = folder / "metrics.csv", ",".join(COLUMNS[:3]).encode()
    if metrics.is_file():
        with metrics.open("rb") as file:
            if file.read(len(start)) == start:
                return True
    return bool(_manifest(folder))


def write_marker(folder: Path) -> None:
    """Mark a folder as a run's."""
    write_text(folder / MARKER, json.dumps(MARK) + "\n")


def owned_files(folder: Path) -> Iterator[Path]:
    """Yield the files of a run, except its marker; links to folders are not followed."""
    for path, own in _classified(folder):
        if own:
            yield path


def foreign_files(folder: Path) -> Iterator[Path]:
    """Yield the files that are in a run's folders, or have the name of one, and are not a run's.

    A link with such a name is not a run's either.
    """
    for path, own in _classified(folder):
        if not own:
            yield path


def remove_run(folder: Path) -> None:
    """Remove a run's files, and its folders that are then empty. The marker stays.

    Raises:
        OSError: A file cannot be removed.
    """
    for path in list(owned_files(folder)):
        path.unlink(missing_ok=True)
    for name, patterns in OWNED.items():
        if patterns and (folder / name).is_dir() and not (folder / name).is_symlink():
            _remove_empty_folders(folder / name)


def owner_of(path: Path, folder: Path) -> str | None:
    """Return which entry of a run's folder a path is, or lies in; None if it is no run's."""
    path, folder = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    if not path.is_relative_to(folder) or path == folder:
        return None
    name = path.relative_to(folder).parts[0]
    return name if name in OWNED or name in (MARKER, LOCK) else None


def _classified(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Yield each file that has a place of the list, and whether it is a run's."""
    for name, patterns in OWNED.items():
        path = folder / name
        if path.is_symlink() or not path.is_dir():
            if os.path.lexists(path):
                yield path, not patterns and path.is_file() and not path.is_symlink()
        elif not patterns:
            yield path, False
        else:
            yield from _classified_in(path, patterns)


def _classified_in(folder: Path, patterns: tuple[str, ...]) -> Iterator[tuple[Path, bool]]:
    if folder.name == "checkpoints" and (listed := _manifest(folder.parent)):
        # Another checkpoint is a person's copy.
        patterns = (*listed, "last.ckpt", "manifest.json")
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in (*files, *links):
            path = Path(parent, name)
            relative = path.relative_to(folder).as_posix()
            # Temporary files of a killed run are removed by another function.
            if not relative.startswith(PREFIX):
                yield path, any(_matches(relative, pattern) for pattern in patterns)


def _matches(path: str, pattern: str) -> bool:
    parts, patterns = path.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _manifest(folder: Path) -> list[str]:
    """Return the checkpoints in the manifest of a run's folder, or an empty list."""
    digests = _read_json(folder / "checkpoints" / "manifest.json")
    if not isinstance(digests, dict):
        return []
    lists = [value for value in digests.values() if isinstance(value, list)]
    valid = all(DIGEST.fullmatch(str(digest)) for digests in lists for digest in digests)
    return list(digests) if valid and len(lists) == len(digests) else []


def _read_json(path: Path) -> Any:
    """Return the content of a small JSON file; None if it is another file."""
    if not path.is_file() or path.stat().st_size > MAX_JSON:
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None


def _is_taken(path: Path) -> bool:
    if path.is_dir() and not path.is_symlink():
        return any(path.iterdir())
    return os.path.lexists(path)


def _remove_empty_folders(folder: Path) -> None:
    for path, _, _ in os.walk(folder, topdown=False):
        if not any(Path(path).iterdir()):
            Path(path).rmdir()
