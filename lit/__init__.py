"""The commands, and what joins adapters and data with Lightning and transformers."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit.train.datamodule import QADataModule
    from lit.train.module import LoRAModule

__all__ = ["LoRAModule", "QADataModule"]

# Before torch is loaded: it would print a hundred lines of warnings where another rank has ended.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
# Large blocks in pages of 2 MB, which Linux hands out and looks up faster.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: Lightning takes seconds to load."""
    if name == "LoRAModule":
        return import_module("lit.train.module").LoRAModule
    if name == "QADataModule":
        return import_module("lit.train.datamodule").QADataModule
    raise AttributeError(f"module 'lit' has no attribute {name!r}")
