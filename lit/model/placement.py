"""Where a model that only answers is loaded: its device and its dtype."""

from typing import NamedTuple

import torch
from transformers import PretrainedConfig

from lit.device.device import check_quantization, choose_device, traits
from lit.device.memory import total_memory
from lit.device.precision import choose_dtype
from lit.model.architecture import skeleton, stored_dtype


class Placement(NamedTuple):
    """The device and the dtype of a model, and a line about them for the person."""

    device: torch.device
    dtype: torch.dtype
    note: str


def place(config: PretrainedConfig, asked: str = "auto", quantize: str | None = None) -> Placement:
    """Choose the device and the dtype of a model.

    Args:
        config: The config of the base.
        asked: As in ``lit.device.device.choose_device``.
        quantize: One of ``lora.base.QUANTIZATIONS``; the dtype is then that of computing.

    Raises:
        ConfigError: There is no such device, or it cannot compute the quantization.
    """
    device = choose_device(asked)
    known = traits(device)
    check_quantization(quantize, known)
    stored = stored_dtype(config)
    # Only weights that a CPU would hold in more bytes than they are stored in can be too large.
    widened = device.type == "cpu" and stored != torch.float32 and not quantize
    dtype, reason = choose_dtype(
        known,
        stored,
        config.get_text_config().model_type,
        _count_parameters(config) if widened else 0,
        total_memory(device),
    )
    return Placement(device, dtype, f"{known}, {str(dtype).removeprefix('torch.')}: {reason}")


def _count_parameters(config: PretrainedConfig) -> int:
    model = skeleton(config, config.name_or_path or "the model", stored_dtype(config))
    return sum(parameter.numel() for parameter in model.parameters())
