"""Compare the settings of a checkpoint with those of the command that resumes from it."""

import hashlib
import json
from typing import Any

import numpy as np

from lit.messages import tr
from lit.train.datamodule import QADataModule
from lora.config import ConfigError

REFUSED = (
    *("model.base", "model.revision", "model.quantize", "model.lora.", "model.optimizer"),
    "model.adapter",
    *("data.", "seed_everything", "trainer.precision"),
    *("trainer.limit_train_batches", "trainer.overfit_batches", "checkpoint.best_by"),
)
"""Settings that may not change: the weights, rows or batches would be those of another run."""
INTERVALS = ("data.val_every_n_steps",)
"""Settings below a refused prefix that may change all the same: the new value is used."""
RESTORED = ("model.lr", "model.weight_decay")
"""Settings that the optimizer's state in a checkpoint holds: the checkpoint's value is used."""
IGNORED = (
    *("config", "output_dir", "ckpt_path", "overwrite", "checkpoint.dirpath"),
    *("data.num_workers", "trainer.default_root_dir", "trainer.enable_progress_bar"),
    # Copies of other settings, which are compared.
    *("model.seed", "data.seed", "data.base", "data.revision"),
)
"""Settings that change no number of a run."""
PATHS = ("data.path", "data.val_path")
"""Files may have moved, so their rows are compared; see ``rows_digest``."""
LENGTH = (
    *("trainer.max_epochs", "trainer.max_steps", "trainer.max_time", "trainer.min_epochs"),
    *("trainer.min_steps", "early_stopping."),
)
"""Settings that decide when a run ends. For these and all others, the new value is used."""

OLD_VALUES = {"data.share_prefixes": "false"}
"""Values that runs had before there was such a setting, where another default came later."""

Settings = dict[str, str]
"""Values as JSON, by dotted name."""


def to_json(values: dict[str, Any]) -> Settings:
    """Return settings in the form in which a checkpoint holds them."""
    return {name: json.dumps(value, default=str) for name, value in values.items()}


def rows_digest(data: QADataModule) -> Settings:
    """Return the number of the training and the validation rows, and a digest of their content."""
    digests = {}
    for name, store, rows in (
        ("data.path", data.store, data.train_rows),
        ("data.val_path", data.val, data.val_rows),
    ):
        digest = hashlib.sha256()
        for column in (store.content_hashes, store.lengths, store.label_counts):
            digest.update(np.ascontiguousarray(column[rows]).tobytes())
        digests[f"{name} (rows)"] = f"{len(rows)} rows, digest {digest.hexdigest()[:12]}"
    return digests


def diff_settings(old: Settings, new: Settings) -> list[str]:
    """Return the names of the settings that both hold, that differ, and that are not ignored."""
    shared = [name for name in new if name in old and not _in(name, IGNORED)]
    # Values, not spellings: a file may say 16.0 where the command said 16.
    return [name for name in shared if _value(old[name]) != _value(new[name])]


def check_settings(old: Settings, new: Settings) -> list[str]:
    """Compare the settings of a checkpoint with those of a command.

    Args:
        old: Settings of the checkpoint.
        new: Settings of the command.

    Returns:
        A line for each setting that differs, with both values and which of them is used.

    Raises:
        ConfigError: A setting differs that may not; the message gives both values.
    """
    old = OLD_VALUES | old if old else old
    names = [name for name in diff_settings(old, new) if name not in PATHS]
    refused = [name for name in names if _in(name, REFUSED) and not _in(name, INTERVALS)]
    if refused:
        values = "; ".join(
            tr("{name} is {new}, was {old}", name=name, new=new[name], old=old[name])
            for name in refused
        )
        raise ConfigError(
            tr(
                "the checkpoint is of a run with other settings: {values}. Set the old values, "
                "or start a new run in another --output_dir",
                values=values,
            )
        )
    lines = []
    for name in names:
        both = {"name": name, "new": new[name], "old": old[name]}
        lines.append(
            tr("{name} is {new}, was {old}: using the checkpoint's value", **both)
            if _in(name, RESTORED)
            else tr("{name} is {new}, was {old}: using the new value", **both)
        )
    return lines


def same_length(old: Settings, new: Settings) -> bool:
    """Return whether all settings that decide when a run ends are equal."""
    return not any(_in(name, LENGTH) for name in diff_settings(old, new))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:  # a digest of rows
        return text


def _in(name: str, group: tuple[str, ...]) -> bool:
    """Return whether a group lists a name, or a prefix of it that ends in a dot."""
    return any(name == item or (item[-1] == "." and name.startswith(item)) for item in group)
