"""The optimizer of an adapter: over A and B alone, with states of 32 or of 8 bits."""

from collections.abc import Callable

import torch
from torch import nn
from torch.optim import Optimizer

from lora.config import ConfigError
from lora.inject import tensors


def _adamw_8bit(paged: bool) -> Callable[..., Optimizer]:
    from bitsandbytes import optim

    return optim.PagedAdamW8bit if paged else optim.AdamW8bit


OPTIMIZERS: dict[str, Callable[[], Callable[..., Optimizer]]] = {
    "adamw": lambda: torch.optim.AdamW,
    "adamw_8bit": lambda: _adamw_8bit(paged=False),
    "paged_adamw_8bit": lambda: _adamw_8bit(paged=True),
    "sgd": lambda: torch.optim.SGD,
}


def make_optimizer(model: nn.Module, name: str, lr: float, weight_decay: float) -> Optimizer:
    """Make an optimizer over a model's trainable tensors; on a CPU, where none is paged, unpaged.

    Args:
        model: With adapters.
        name: A key of OPTIMIZERS.
        lr: The learning rate.
        weight_decay: Decay of A and B.

    Raises:
        ConfigError: There is no such optimizer.
    """
    if name not in OPTIMIZERS:
        raise ConfigError(f"model.optimizer is {name!r}; there are {', '.join(OPTIMIZERS)}")
    parameters = list(tensors(model).values())
    if name.startswith("paged") and parameters[0].device.type == "cpu":
        name = name.removeprefix("paged_")
    return OPTIMIZERS[name]()(parameters, lr=lr, weight_decay=weight_decay)
