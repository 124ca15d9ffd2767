"""A run's folder: where things are, and that no run is overwritten by accident."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from data.types import Message
from lora.adapter import write_whole
from lora.config import ConfigError


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

    def check(self, resume: bool, overwrite: bool) -> None:
        """Look whether a run may be written here; nothing is changed yet.

        Raises:
            ConfigError: The folder holds a run already, or is a file.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"output_dir {self.path} is a file")
        results = (self.adapter, self.checkpoints, self.metrics)
        present = [path.name for path in results if path.exists()]
        if present and not resume and not overwrite:
            names = ", ".join(present)
            raise ConfigError(
                f"{self.path} holds a run already ({names}). Go on with it by --ckpt_path last, "
                "replace it by --overwrite true, or give another --output_dir"
            )

    def prepare(self, resume: bool) -> None:
        """Make the folder, and remove what an earlier run left unless this one goes on with it."""
        if not resume:
            # Whatever else lies there is not ours to remove.
            for path in (self.adapter, self.checkpoints, self.tensorboard):
                shutil.rmtree(path, ignore_errors=True)
            for path in (self.config, self.metrics, self.picture, self.validation):
                path.unlink(missing_ok=True)
        self.path.mkdir(parents=True, exist_ok=True)

    def checkpoint(self, asked: str) -> Path:
        """The checkpoint file that ``--ckpt_path`` means.

        Raises:
            ConfigError: There is none.
        """
        path = self.last if asked == "last" else Path(asked)
        if not path.is_file():
            raise ConfigError(f"there is no checkpoint {path} to go on from")
        return path

    def write_validation(self, held_out: Iterable[tuple[str, list[Message]]]) -> None:
        """Write the held-out rows as a data file of their own, each with its source."""
        rows = [
            json.dumps(
                {"messages": [message._asdict() for message in messages], "source": place},
                ensure_ascii=False,
            )
            for place, messages in held_out
        ]
        write_whole(self.validation, "\n".join(rows) + "\n")
