"""A run's folder: its paths, the lock that keeps it to one run, and what may be overwritten."""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from data.formats.judged import Judged
from data.types import Message
from lit.messages import tr
from lit.run.console import is_rank0
from lit.run.lock import FolderLock
from lit.run.output import existing_folder, remove_leftovers
from lit.run.ownership import (
    MARKER,
    foreign_files,
    is_run,
    owner_of,
    present,
    remove_run,
    write_marker,
)
from lora.config import ConfigError
from lora.storage.files import PREFIX, write_text


class RunFolder:
    """The paths of a run.

    Args:
        path: The run's output_dir.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.adapter = self.path / "adapter"
        self.checkpoints = self.path / "checkpoints"
        self.last = self.checkpoints / "last.ckpt"
        self.tensorboard = self.path / "tensorboard"
        self.metrics = self.path / "metrics.csv"
        self.picture = self.path / "loss.png"
        """The last file that a run writes: a run without it is incomplete."""
        self.validation = self.path / "validation.jsonl"

    @contextmanager
    def claimed(self, resume: bool, overwrite: bool) -> Iterator[None]:
        """Lock the folder for this run, after checking that the run may write there.

        Only temporary files of a killed run are removed; everything else stays as it is.

        Args:
            resume: Whether the run resumes from a checkpoint of this folder.
            overwrite: Whether it may replace the run that is in the folder.

        Raises:
            ConfigError: The folder already holds a run, or files that no run wrote and this one
                would replace; another run is writing to it; or the path is a file.
            OSError: The folder cannot be written to.
        """
        # Only rank 0 writes.
        if not is_rank0():
            yield
            return
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(tr("output_dir {path} is a file: choose a folder", path=self.path))
        with existing_folder(self.path), FolderLock(self.path):
            self._check(resume, overwrite)
            for folder in (self.path, self.checkpoints, self.adapter):
                remove_leftovers(folder)
            # Fails now, before the work, without permission or on a read-only file system.
            with tempfile.TemporaryFile(dir=self.path, prefix=PREFIX):
                pass
            yield

    def prepare(self, resume: bool) -> None:
        """Mark the folder as a run's and, unless this run resumes it, remove the earlier run."""
        if not is_rank0():
            return
        write_marker(self.path)
        if not resume:
            remove_run(self.path)
        # A link is a person's.
        elif not self.picture.is_symlink():
            self.picture.unlink(missing_ok=True)

    def has_checkpoint(self, path: str) -> bool:
        """Return whether ``--ckpt_path`` names a checkpoint of this folder."""
        return path == "last" or os.path.realpath(Path(path).parent) == os.path.realpath(
            self.checkpoints
        )

    def check_inputs(self, inputs: Iterable[tuple[str, Path]]) -> None:
        """Check that the run writes none of the files that it reads.

        Args:
            inputs: The setting and the path of each file or folder.

        Raises:
            ConfigError: The run would replace or remove one of them, or reads its own folder.
        """
        for setting, path in inputs:
            # The config of a run, given again, is written with the same settings.
            if setting == "--config" and is_run(self.path):
                continue
            if owner_of(path, self.path) is not None:
                raise ConfigError(
                    tr(
                        "{setting} is {path}, which this run would replace: copy it to another "
                        "folder, or choose another --output_dir",
                        setting=setting,
                        path=path,
                    )
                )
            own, read = Path(os.path.realpath(self.path)), Path(os.path.realpath(path))
            if setting.startswith("data.") and read == own:
                raise ConfigError(
                    tr(
                        "{setting} is {path}, the folder that this run writes to: name the "
                        "files, or choose another --output_dir",
                        setting=setting,
                        path=path,
                    )
                )
            if setting == "model.adapter" and own.is_relative_to(read):
                raise ConfigError(
                    tr(
                        "{setting} is {path}, and this run would write into that folder: choose "
                        "another --output_dir",
                        setting=setting,
                        path=path,
                    )
                )

    def write_validation(self, held_out: Iterable[tuple[str, list[Message], Judged]]) -> None:
        """Write the held-out rows as a data file.

        Args:
            held_out: The source (file and line), the messages and the judged answers of each row.
        """
        rows = []
        for source, messages, judged in held_out:
            row = {"messages": [message._asdict() for message in messages], "source": source}
            row |= {name: texts for name, texts in judged._asdict().items() if texts}
            rows.append(json.dumps(row, ensure_ascii=False))
        write_text(self.validation, "\n".join(rows) + "\n")

    def check_owner(self, resume: bool) -> None:
        """Check that the folder holds no files that a run would replace and that no run wrote.

        Args:
            resume: As in ``claimed``.

        Raises:
            ConfigError: It holds such files.
        """
        names = present(self.path)
        # Checkpoints that were copied here alone can be resumed from.
        copied = resume and names == [self.checkpoints.name]
        if names and not copied and not is_run(self.path):
            raise ConfigError(
                tr(
                    "{path} holds {names}, which a run would replace, but no run of lit-lora "
                    "wrote this folder: it has no {marker}, and no metrics.csv or "
                    "checkpoints/manifest.json of an older version. Choose another "
                    "--output_dir, or move these files away",
                    path=self.path,
                    names=", ".join(names),
                    marker=MARKER,
                )
            )

    def _check(self, resume: bool, overwrite: bool) -> None:
        self.check_owner(resume)
        names = present(self.path)
        if not names or resume:
            return
        if not overwrite:
            raise ConfigError(
                tr(
                    "{path} already holds a run ({names}). Resume it with --ckpt_path last, "
                    "replace it with --overwrite true, or choose another --output_dir",
                    path=self.path,
                    names=", ".join(names),
                )
            )
        if foreign := [str(path) for path in foreign_files(self.path)]:
            named = ", ".join(foreign[:3])
            if len(foreign) > 3:
                named = tr("{named} and {more} more", named=named, more=len(foreign) - 3)
            raise ConfigError(
                tr(
                    "--overwrite true would remove {named}, which no run wrote: move it "
                    "away, or choose another --output_dir",
                    named=named,
                )
            )
