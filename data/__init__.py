"""Text, tokens and batches: from a file of questions and answers to one flat batch.

Public names are imported on first use, so that ``import data`` alone loads no library.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data.formats.rows import to_messages
    from data.planning.batch import collate
    from data.planning.plan import Plan, plan_epoch
    from data.readers.source import Source, read
    from data.splitting.split import split_train_val
    from data.store import Store, build_store
    from data.template import choose_template, encode
    from data.types import Batch, DataError, Example, Message

__all__ = [
    "Batch",
    "DataError",
    "Example",
    "Message",
    "Plan",
    "Source",
    "Store",
    "build_store",
    "choose_template",
    "collate",
    "encode",
    "plan_epoch",
    "read",
    "split_train_val",
    "to_messages",
]

_MODULES = {
    "data.planning.batch": ("collate",),
    "data.formats.rows": ("to_messages",),
    "data.planning.plan": ("Plan", "plan_epoch"),
    "data.readers.source": ("Source", "read"),
    "data.splitting.split": ("split_train_val",),
    "data.store": ("Store", "build_store"),
    "data.template": ("choose_template", "encode"),
    "data.types": ("Batch", "DataError", "Example", "Message"),
}


def __getattr__(name: str) -> object:
    """Import a public name.

    Raises:
        AttributeError: There is no such name.
    """
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
