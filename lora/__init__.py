"""LoRA adapters for any torch model: inject, train, save, load, merge, eject."""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lora.config import ConfigError, LoRAConfig
    from lora.inject import (
        VARIANTS,
        adapters_disabled,
        count_parameters,
        eject,
        inject,
        lora_layers,
        merge,
        quantize_model,
        trainable_parameters,
    )
    from lora.layer import LoRALinear
    from lora.storage.adapter import load_adapter, save_adapter
    from lora.storage.peft_format import AdapterError

_MODULES = {
    "AdapterError": "storage.peft_format",
    "ConfigError": "config",
    "LoRAConfig": "config",
    "LoRALinear": "layer",
    "VARIANTS": "inject",
    "adapters_disabled": "inject",
    "count_parameters": "inject",
    "eject": "inject",
    "inject": "inject",
    "load_adapter": "storage.adapter",
    "lora_layers": "inject",
    "merge": "inject",
    "quantize_model": "inject",
    "save_adapter": "storage.adapter",
    "trainable_parameters": "inject",
}
__all__ = [
    "VARIANTS",
    "AdapterError",
    "ConfigError",
    "LoRAConfig",
    "LoRALinear",
    "adapters_disabled",
    "count_parameters",
    "eject",
    "inject",
    "load_adapter",
    "lora_layers",
    "merge",
    "quantize_model",
    "save_adapter",
    "trainable_parameters",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch takes seconds to load."""
    if name not in _MODULES:
        raise AttributeError(f"module 'lora' has no attribute {name!r}")
    return getattr(import_module(f"lora.{_MODULES[name]}"), name)


class _Package(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        # Python sets the module lora.inject as the attribute ``inject`` of this package, which
        # would hide the function of that name.
        if not (name in _MODULES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
