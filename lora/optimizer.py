"""The optimizer of an adapter: over what trains, with states of 32 or of 8 bits."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from lora.config import ConfigError
from lora.inject import lora_layers, trainable_parameters


def _adamw_8bit(paged: bool) -> Callable[..., Optimizer]:
    from bitsandbytes import optim

    return optim.PagedAdamW8bit if paged else optim.AdamW8bit


OPTIMIZERS: dict[str, Callable[[], Callable[..., Optimizer]]] = {
    "adamw": lambda: torch.optim.AdamW,
    "adamw_8bit": lambda: _adamw_8bit(paged=False),
    "paged_adamw_8bit": lambda: _adamw_8bit(paged=True),
    "sgd": lambda: torch.optim.SGD,
}


def make_optimizer(
    model: nn.Module, name: str, lr: float, weight_decay: float, loraplus_lr_ratio: float = 1.0
) -> Optimizer:
    """Make an optimizer over a model's trainable tensors; on a CPU, where none is paged, unpaged.

    Args:
        model: With adapters.
        name: A key of OPTIMIZERS.
        lr: The learning rate.
        weight_decay: Decay of A and B; nothing else decays.
        loraplus_lr_ratio: B learns so many times faster.

    Raises:
        ConfigError: There is no such optimizer.
    """
    if name not in OPTIMIZERS:
        raise ConfigError(f"model.optimizer is {name!r}; there are {', '.join(OPTIMIZERS)}")
    groups = parameter_groups(model, lr, weight_decay, loraplus_lr_ratio)
    if name.startswith("paged") and groups[0]["params"][0].device.type == "cpu":
        name = name.removeprefix("paged_")
    return OPTIMIZERS[name]()(groups, lr=lr)


def parameter_groups(
    model: nn.Module, lr: float, weight_decay: float, loraplus_lr_ratio: float
) -> list[dict[str, Any]]:
    """The trainable tensors by learning rate and decay; those at the plain rate come first.

    Decay pulls towards zero. That is the base model for A and B, and it is not for a magnitude of
    DoRA, for A and B of PiSSA, or for an embedding.

    Reference:
        Hayou et al., LoRA+, 2024, arXiv:2402.12354.
    """
    faster, decaying = set(), set()
    for _, layer in lora_layers(model):
        faster.add(id(layer.lora_B))
        decaying |= {id(layer.get_parameter(tensor)) for tensor in layer.DECAYED}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in trainable_parameters(model).values():
        place = id(parameter)
        fast = place in faster and loraplus_lr_ratio != 1
        groups.setdefault((fast, place not in decaying), []).append(parameter)
    return [
        {
            "params": groups[fast, still],
            "lr": lr * loraplus_lr_ratio if fast else lr,
            "weight_decay": 0.0 if still else weight_decay,
        }
        for fast, still in sorted(groups)
    ]
