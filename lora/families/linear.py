"""The layers of a model that adapters can go on: linear ones, and experts."""

from typing import TypeGuard

import torch
from torch import nn

from lora.families.decoder import text_path
from lora.families.experts import is_experts
from lora.families.reach import LINEAR_CLASSES, unreached_layers
from lora.messages import tr
from lora.paths import is_inside
from lora.replacement import Replacement


def is_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Return whether a module computes W x + b and nothing else.

    True for ``nn.Linear``, bitsandbytes' layers, GPT-2's ``Conv1D`` and ``LINEAR_CLASSES``. Other
    subclasses of ``nn.Linear`` may return tuples or multiply in groups, as routers do.
    """
    # A faster linear layer is what the layer is that it replaced.
    kind = module.kind() if isinstance(module, Replacement) else type(module)
    if not isinstance(module, nn.Linear):
        return is_transposed(module)
    return (
        kind is nn.Linear
        or kind.__name__ in LINEAR_CLASSES
        or kind.__module__.startswith("bitsandbytes.")
    )


def is_transposed(module: nn.Module) -> bool:
    """Return whether a module stores its weight as (in, out), as GPT-2's ``Conv1D`` does."""
    # Conv1D belongs to transformers, which this package does not import.
    return hasattr(module, "nf") and getattr(module, "weight", torch.empty(0)).ndim == 2


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Return every linear layer that an adapter can go on, by path.

    The output head and layers outside the text part, such as those of a tower, are none.
    """
    head, unreached, part = output_head(model), unreached_layers(model), text_path(model)
    return {
        path: module
        for path, module in model.named_modules(remove_duplicate=False)
        if is_linear(module)
        and module is not head
        and path
        and path not in unreached
        and is_inside(path, part)
    }


def expert_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return every module of the text part that holds the experts of a block, by path."""
    part = text_path(model)
    return {
        path: module
        for path, module in model.named_modules(remove_duplicate=False)
        if is_experts(module) and is_inside(path, part)
    }


def barred_layers(model: nn.Module) -> dict[str, str]:
    """Return, by path, why an adapter cannot go on a layer that looks linear."""
    head, unreached = output_head(model), unreached_layers(model)
    barred = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if module is head or not (isinstance(module, nn.Linear) or is_linear(module)):
            continue
        if path in unreached:
            barred[path] = unreached[path]
        elif not is_linear(module):
            barred[path] = tr(
                "{kind} computes more than a linear layer", kind=type(module).__name__
            )
    return barred


def output_head(model: nn.Module) -> nn.Module | None:
    """Return the layer that makes logits, as wide as the vocabulary, or None."""
    return getattr(model, "get_output_embeddings", lambda: None)()
