"""What differs between the settings of a checkpoint and those of a command that goes on from it."""

import hashlib
import json
from typing import Any

import numpy as np

from lit.train.datamodule import QADataModule
from lora.config import ConfigError

REFUSED = (
    *("model.base", "model.revision", "model.quantize", "model.lora.", "model.optimizer"),
    *("data.", "seed_everything", "trainer.precision"),
    *("trainer.limit_train_batches", "trainer.overfit_batches"),
)
"""With another value it would be another run: other weights, other rows, or other batches."""
RESTORED = ("model.lr", "model.weight_decay")
"""What the optimizer's state in a checkpoint holds: the checkpoint rules."""
FREE = (
    *("config", "output_dir", "ckpt_path", "overwrite", "checkpoint.dirpath"),
    *("data.num_workers", "trainer.default_root_dir", "trainer.enable_progress_bar"),
    *("model.seed", "data.seed", "data.base", "data.revision"),  # said by those they are taken from
)
"""What changes no number of a run."""
PATHS = ("data.path", "data.val_path")
"""Files may have moved: their rows are compared, by ``digests``."""
LENGTH = (
    *("trainer.max_epochs", "trainer.max_steps", "trainer.max_time", "trainer.min_epochs"),
    *("trainer.min_steps", "early_stopping."),
)
"""What decides where a run ends; in all else that is left, the command rules too."""

Settings = dict[str, str]
"""Values as JSON, by dotted name."""


def settings(values: dict[str, Any]) -> Settings:
    """Settings in the form in which a checkpoint holds them."""
    return {name: json.dumps(value, default=str) for name, value in values.items()}


def digests(data: QADataModule) -> Settings:
    """What stands in the rows of either side: how many there are, and a digest of them."""
    said = {}
    for name, store, rows in (
        ("data.path", data.store, data.train_rows),
        ("data.val_path", data.val, data.val_rows),
    ):
        digest = hashlib.sha256()
        for column in (store.contents, store.lengths, store.targets):
            digest.update(np.ascontiguousarray(column[rows]).tobytes())
        said[f"{name} (rows)"] = f"{len(rows)} rows, digest {digest.hexdigest()[:12]}"
    return said


def differing(then: Settings, now: Settings) -> list[str]:
    """The names of all settings that both know and that differ."""
    known = [name for name in now if name in then and not _in(name, FREE)]
    return [name for name in known if then[name] != now[name]]


def check_settings(then: Settings, now: Settings) -> list[str]:
    """Compare the settings of a checkpoint with a command's.

    Returns:
        A line for each setting that may differ, which says whose value rules.

    Raises:
        ConfigError: Others differ: each is named with both values.
    """
    names = [name for name in differing(then, now) if name not in PATHS]
    refused = [name for name in names if _in(name, REFUSED)]
    if refused:
        listed = "; ".join(f"{name} is {now[name]}, was {then[name]}" for name in refused)
        raise ConfigError(
            f"the checkpoint is of another run: {listed}. Give what it was, or begin anew in "
            "another --output_dir"
        )
    lines = []
    for name in names:
        whose = "the checkpoint's" if _in(name, RESTORED) else "the new"
        lines.append(f"{name} is {now[name]}, was {then[name]}: {whose} value rules")
    return lines


def _in(name: str, group: tuple[str, ...]) -> bool:
    return any(name == known or (known[-1] == "." and name.startswith(known)) for known in group)


def same_end(then: Settings, now: Settings) -> bool:
    """Whether nothing differs that decides where a run ends."""
    return not any(_in(name, LENGTH) for name in differing(then, now))
