"""The optimizer of an adapter, with 32-bit or 8-bit states."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from lora.config import ConfigError
from lora.injection import trainable_parameters, updates
from lora.messages import tr


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
    """Return an optimizer over the parameters that train.

    A paged optimizer needs a GPU; on a CPU the same optimizer without paging is returned.

    Args:
        model: A model with adapters.
        name: A key of OPTIMIZERS.
        lr: The learning rate.
        weight_decay: Weight decay of A and B; nothing else decays.
        loraplus_lr_ratio: Learning rate of B divided by that of A.

    Raises:
        ConfigError: The optimizer is unknown.
    """
    if name not in OPTIMIZERS:
        raise ConfigError(
            tr(
                "`optimizer` is {name!r}; choose {optimizers}",
                name=name,
                optimizers=", ".join(OPTIMIZERS),
            )
        )
    groups = parameter_groups(model, lr, weight_decay, loraplus_lr_ratio)
    if name.startswith("paged") and groups[0]["params"][0].device.type == "cpu":
        name = name.removeprefix("paged_")
    return OPTIMIZERS[name]()(groups, lr=lr)


def parameter_groups(
    model: nn.Module, lr: float, weight_decay: float, loraplus_lr_ratio: float
) -> list[dict[str, Any]]:
    """Group the parameters that train by learning rate and decay; the plain rate comes first.

    Weight decay pulls towards zero. For A and B of LoRA, zero is the base model. For a magnitude of
    DoRA, for A and B of PiSSA and for an embedding it is not, so they do not decay.

    Reference:
        Hayou et al., LoRA+, 2024, arXiv:2402.12354.
    """
    fast_ids, decaying_ids = set(), set()
    for _, update in updates(model):
        fast_ids.add(id(update.lora_B))
        decaying_ids |= {id(update.get_parameter(name)) for name in update.DECAYED}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in trainable_parameters(model).values():
        fast = id(parameter) in fast_ids and loraplus_lr_ratio != 1
        groups.setdefault((fast, id(parameter) not in decaying_ids), []).append(parameter)
    return [
        {
            "params": groups[fast, undecayed],
            "lr": lr * loraplus_lr_ratio if fast else lr,
            "weight_decay": 0.0 if undecayed else weight_decay,
        }
        for fast, undecayed in sorted(groups)
    ]
