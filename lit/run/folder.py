"""A run's folder: its paths, the lock that keeps it to one run, and what may be overwritten."""

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from data.types import Message
from lit.run.console import is_rank0, print_rank0
from lit.run.lock import FolderLock
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

        Raises:
            ConfigError: The folder already holds a run, another run is writing to it, or the path
                is a file.
            OSError: The folder cannot be written to.
        """
        # Only rank 0 writes.
        if not is_rank0():
            yield
            return
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"output_dir {self.path} is a file: choose a folder")
        created = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with FolderLock(self.path):
                self._check(resume, overwrite)
                self._remove_temporary_files()
                # Fails now, before the work, without permission or on a read-only file system.
                with tempfile.TemporaryFile(dir=self.path, prefix=PREFIX):
                    pass
                yield
        finally:
            if created and not any(self.path.iterdir()):
                self.path.rmdir()

    def prepare(self, resume: bool) -> None:
        """Remove the results of an earlier run, unless this run resumes it."""
        if not is_rank0():
            return
        if not resume:
            # Other files in the folder are the user's.
            for path in (self.adapter, self.checkpoints, self.tensorboard):
                shutil.rmtree(path, ignore_errors=True)
            for path in (self.config, self.metrics, self.validation):
                path.unlink(missing_ok=True)
        self.picture.unlink(missing_ok=True)

    def write_validation(self, held_out: Iterable[tuple[str, list[Message]]]) -> None:
        """Write the held-out rows as a data file.

        Args:
            held_out: The source (file and line) and the messages of each row.
        """
        rows = [
            json.dumps(
                {"messages": [message._asdict() for message in messages], "source": source},
                ensure_ascii=False,
            )
            for source, messages in held_out
        ]
        write_text(self.validation, "\n".join(rows) + "\n")

    def _check(self, resume: bool, overwrite: bool) -> None:
        results = (self.adapter, self.checkpoints, self.metrics)
        present = [path.name for path in results if path.exists()]
        if present and not resume and not overwrite:
            raise ConfigError(
                f"{self.path} already holds a run ({', '.join(present)}). Resume it with "
                "--ckpt_path last, replace it with --overwrite true, or choose another "
                "--output_dir"
            )

    def _remove_temporary_files(self) -> None:
        for folder in (self.path, self.checkpoints, self.adapter):
            for path in folder.glob(f"{PREFIX}*"):
                print_rank0(f"run    removed {path}, a temporary file of a killed run")
                shutil.rmtree(path) if path.is_dir() else path.unlink()
