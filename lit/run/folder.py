"""A run's folder: where things are, that one run at a time writes there, and none by accident."""

import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from data.types import Message
from lit.run.console import print_rank0
from lit.run.lock import FolderLock
from lora.config import ConfigError
from lora.files import write_text

LEFTOVER = re.compile(r"\.(adapter-|space-|.+\.)[a-z0-9_]{8}")
"""Names of what is being written; nothing of that name outlives a run that was not killed."""


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
        self.validation = self.path / "validation.jsonl"

    @contextmanager
    def claimed(self, resume: bool, overwrite: bool) -> Iterator[None]:
        """Keep the folder for one run, and look whether that run may write there.

        Nothing that lies there is changed, but for what a killed run was just writing.

        Raises:
            ConfigError: The folder holds a run already, is being written to, or is a file.
            OSError: It cannot be written to.
        """
        # Ranks that were started beside the first write nothing.
        if getattr(rank_zero_only, "rank", 0):
            yield
            return
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"output_dir {self.path} is a file")
        made = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with FolderLock(self.path):
                self._check(resume, overwrite)
                self._clean()
                with tempfile.TemporaryFile(dir=self.path):
                    pass  # no permission, or a read-only file system, is found now
                yield
        finally:
            if made and not any(self.path.iterdir()):
                self.path.rmdir()

    @rank_zero_only
    def prepare(self, resume: bool) -> None:
        """Remove what an earlier run left, unless this one goes on with it."""
        if not resume:
            # Whatever else lies there is not ours to remove.
            for path in (self.adapter, self.checkpoints, self.tensorboard):
                shutil.rmtree(path, ignore_errors=True)
            for path in (self.config, self.metrics, self.validation):
                path.unlink(missing_ok=True)
        # The last file of a run that came to its end.
        self.picture.unlink(missing_ok=True)

    def write_validation(self, held_out: Iterable[tuple[str, list[Message]]]) -> None:
        """Write the held-out rows as a data file of their own, each with its source."""
        rows = [
            json.dumps(
                {"messages": [message._asdict() for message in messages], "source": place},
                ensure_ascii=False,
            )
            for place, messages in held_out
        ]
        write_text(self.validation, "\n".join(rows) + "\n")

    def _check(self, resume: bool, overwrite: bool) -> None:
        results = (self.adapter, self.checkpoints, self.metrics)
        present = [path.name for path in results if path.exists()]
        if present and not resume and not overwrite:
            names = ", ".join(present)
            raise ConfigError(
                f"{self.path} holds a run already ({names}). Go on with it by --ckpt_path last, "
                "replace it by --overwrite true, or give another --output_dir"
            )

    def _clean(self) -> None:
        for folder in (self.path, self.checkpoints, self.adapter):
            for path in folder.glob(".*"):
                if LEFTOVER.fullmatch(path.name):
                    print_rank0(f"run    removed {path}, which a killed run was writing")
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
