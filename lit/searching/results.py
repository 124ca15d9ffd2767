"""The folder of a search: which search it belongs to, best.yaml, and the winner's adapter."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lit.messages import tr
from lit.resume.settings_diff import Settings, diff_settings
from lit.run.lock import LOCK, FolderLock
from lit.run.output import existing_folder, remove_leftovers
from lit.searching.progress import describe
from lit.searching.trial_settings import trial_settings
from lit.searching.trials.ledger import Job
from lit.searching.workbench import Workbench
from lora.config import ConfigError
from lora.storage.files import temporary_folder, write_text

MARKER = "search.json"
"""The file that says which search a folder belongs to."""
BEST, ADAPTER, VALIDATION = "best.yaml", "adapter", "validation.jsonl"
IGNORED = (
    *("config", "output_dir", "ckpt_path", "overwrite", "force", "checkpoint", "early_stopping"),
    *("trainer.enable_progress_bar", "trainer.default_root_dir", "data.num_workers"),
    *("data.path", "data.val_path"),
)
"""Settings that change no number of a search; of the files, the rows count."""


def identity(settings: Settings, rows: Settings, space: str, seed: int) -> Settings:
    """Return what two commands must have in common to work on one search, as JSON by name."""
    own = {k: v for k, v in settings.items() if not k.startswith(IGNORED)}
    return own | rows | {"--space": json.dumps(space), "--seed": json.dumps(seed)}


def name_of(known: Settings) -> str:
    """Return the name of a search in its storage."""
    text = json.dumps(known, sort_keys=True)
    return f"lit.search {hashlib.sha256(text.encode()).hexdigest()[:16]}"


@contextmanager
def claimed(folder: Path, known: Settings, overwrite: bool) -> Iterator[None]:
    """Lock the folder of a search, after checking that it belongs to this search or to none.

    Args:
        folder: The folder.
        known: The identity of the search.
        overwrite: Whether it may replace another search.

    Raises:
        ConfigError: The folder holds another search, or files that no search wrote.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(tr("output_dir {folder} is a file: choose a folder", folder=folder))
    with existing_folder(folder), FolderLock(folder):
        remove_leftovers(folder)
        there = [path.name for path in folder.iterdir() if path.name != LOCK]
        old = _read(folder / MARKER)
        if there and old is None:
            raise ConfigError(
                tr(
                    "{folder} holds {names}, and no search wrote it: choose another --output_dir",
                    folder=folder,
                    names=", ".join(sorted(there)[:3]),
                )
            )
        if old is not None and old != known:
            if not overwrite:
                raise ConfigError(_other(folder, old, known))
            for path in (folder / name for name in there):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        write_text(folder / MARKER, json.dumps(known, indent=1) + "\n")
        yield


def write_best(bench: Workbench, folder: Path, job: Job, number: int, sentence: str) -> list[Path]:
    """Write best.yaml, and copy the adapter of the trial if this machine trained it.

    Args:
        bench: Knows the settings.
        folder: The search's folder.
        job: What the trial trained.
        number: The trial whose adapter is taken.
        sentence: The decision, for the top of the file.

    Returns:
        What was written.
    """
    best = folder / BEST
    made = trial_settings(bench.arguments, job, bench.steps)
    made.config.output_dir = str(folder / "best")
    made.save(best)
    head = [sentence, describe(job.settings), f"python -m lit.fit --config {best}"]
    lines = [f"# {line}" for text in head for line in text.splitlines()]
    write_text(best, "\n".join(lines) + "\n\n" + best.read_text(encoding="utf-8"))
    trained = trial_folder(folder, number) / ADAPTER
    if not trained.is_dir():
        return [best]
    with temporary_folder(folder / ADAPTER) as new:
        shutil.copytree(trained, new / ADAPTER)
        if (folder / ADAPTER).exists():
            shutil.rmtree(folder / ADAPTER)
        (new / ADAPTER).rename(folder / ADAPTER)
    return [best, folder / ADAPTER]


def trial_folder(folder: Path, number: int) -> Path:
    """Return where the adapter of a trial is kept."""
    return folder / "trials" / f"{number:03}"


def write_report_rows(bench: Workbench, folder: Path) -> None:
    """Write the reporting rows, which chose nothing, where lit.compare looks for rows."""
    val, lines = bench.data.val, []
    for row in bench.data.report_rows.tolist():
        messages = [message._asdict() for message in val.messages(row)]
        record: dict[str, Any] = {"messages": messages, "source": val.location(row)}
        record |= {k: texts for k, texts in val.judged(row)._asdict().items() if texts}
        lines.append(json.dumps(record, ensure_ascii=False))
    write_text(folder / VALIDATION, "".join(f"{line}\n" for line in lines))


def _read(path: Path) -> Settings | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _other(folder: Path, old: Settings, known: Settings) -> str:
    different = diff_settings(old, known) or sorted(old.keys() ^ known.keys())
    return tr(
        "{folder} holds a search with other settings ({names}): replace it with --overwrite true, "
        "or choose another --output_dir",
        folder=folder,
        names=", ".join(different[:5]),
    )
