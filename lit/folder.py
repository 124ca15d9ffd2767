"""A run's folder: where things are, and that no run is overwritten by accident."""

import csv
import json
import shutil
from pathlib import Path

from data.store import conversations
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
        self._own = (
            self.config,
            self.adapter,
            self.checkpoints,
            self.tensorboard,
            self.metrics,
            self.picture,
            self.validation,
        )

    def claim(self, resume: bool, overwrite: bool) -> None:
        """Make the folder ready for a run.

        Raises:
            ConfigError: It holds a run already, or something else than a run.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"output_dir {self.path} is a file")
        present = [path.name for path in self._own if path.exists()]
        if present and not resume:
            if not overwrite:
                raise ConfigError(
                    f"{self.path} holds a run already ({', '.join(present)}). Go on with it by "
                    "--ckpt_path last, replace it by --overwrite true, or give another --output_dir"
                )
            # Only what a run writes is removed; whatever else lies there is not ours.
            for path in self._own:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
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

    def write_validation(self, data_path: str, lines: set[int]) -> None:
        """Write the held-out rows as a data file of their own, with their source."""
        rows = [
            json.dumps(
                {
                    "messages": [
                        {"role": m.role, "content": m.content, "train": m.train} for m in messages
                    ],
                    "source": f"{row.file}:{row.line}",
                },
                ensure_ascii=False,
            )
            for row, messages in conversations(data_path, lines)
        ]
        write_whole(self.validation, "\n".join(rows) + "\n")

    def losses(self) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
        """The (step, loss) of training and of validation, from metrics.csv."""
        found: dict[str, list[tuple[int, float]]] = {"train/loss": [], "val/loss": []}
        with self.metrics.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                for name, values in found.items():
                    if row.get(name):
                        values.append((int(row["step"]), float(row[name])))
        return found["train/loss"], found["val/loss"]
