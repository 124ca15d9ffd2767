"""LoRA adapters for any torch model: inject, train, save, load, merge, eject."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lora.config import ConfigError, LoRAConfig
    from lora.injection import (
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
    "VARIANTS": "injection",
    "adapters_disabled": "injection",
    "count_parameters": "injection",
    "eject": "injection",
    "inject": "injection",
    "load_adapter": "storage.adapter",
    "lora_layers": "injection",
    "merge": "injection",
    "quantize_model": "injection",
    "save_adapter": "storage.adapter",
    "trainable_parameters": "injection",
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
