"""A step of training on the meta device: every tensor has its size, and none has its numbers."""

import weakref
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from data.types import Batch
from lit.model.attention import PACKED, UnpackableError, hidden_states
from lit.model.fast_layers import use_fast_layers
from lit.model.loss import sum_at


class Step(NamedTuple):
    """What a step of training holds beside the model, in bytes."""

    kept: int
    """Activations that are kept for the backward pass when it begins."""
    peak: int
    """The most that is held at any time, with the gradients of what trains."""


class Live(TorchDispatchMode):
    """Counts the bytes of tensors that were made since it began and are still held."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self._held: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {id(storage) for storage in _storages((args, kwargs))}
        made = func(*args, **(kwargs or {}))
        for storage in _storages(made):
            # Some results are views of what was given.
            if id(storage) not in given and id(storage) not in self._held:
                self._hold(storage)
        return made

    def _hold(self, storage: torch.UntypedStorage) -> None:
        place, size = id(storage), storage.nbytes()
        self._held.add(place)
        self.bytes += size
        self.peak = max(self.peak, self.bytes)
        # The Python side of a storage lives as long as the storage, also within autograd.
        weakref.finalize(storage, self._release, place, size)

    def _release(self, place: int, size: int) -> None:
        self._held.discard(place)
        self.bytes -= size


class Fused(TorchFunctionMode):
    """Attention by the kernel that holds no scores, as CPU and GPU compute it; meta would not."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # With dropout a CPU has no such kernel either.
        if func is not F.scaled_dot_product_attention or kwargs.get("dropout_p"):
            return func(*args, **kwargs)
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        # It takes fewer heads of keys than of queries without being told.
        named = {name: value for name, value in kwargs.items() if name != "enable_gqa"}
        if named.get("attn_mask") is not None:
            named["attn_mask"] = named["attn_mask"].to(args[0].dtype)
        return kernel(*args, **named)[0]


def rehearse(
    model: PreTrainedModel, lengths: Sequence[int], labels: int, gradient_checkpointing: bool
) -> Step:
    """Go forward and back through a model that has no numbers.

    Args:
        model: On the meta device, with adapters.
        lengths: Tokens of each row of the micro-batch.
        labels: Its labeled tokens.
        gradient_checkpointing: As in ``LoRAModule``.
    """
    batch = _batch(lengths)
    # Some families look for padding in the tokens, of which there are none.
    model.config.pad_token_id = None
    if _packs(model):
        model.set_attn_implementation(PACKED)
    if gradient_checkpointing:
        again = {"use_reentrant": False, "context_fn": lambda: (nullcontext(), Fused())}
        model.gradient_checkpointing_enable(again)
    else:
        use_fast_layers(model, ["gated MLP"])
    model.train()
    targets = torch.empty(labels, dtype=torch.int64, device="meta")
    with Live() as live, Fused():
        hidden = hidden_states(model, batch)[0]
        kept = live.bytes
        sum_at(model, hidden.index_select(0, targets), targets).backward()
    return Step(kept, live.peak)


def _batch(lengths: Sequence[int]) -> Batch:
    ids = torch.empty((1, sum(lengths)), dtype=torch.int64, device="meta")
    borders = torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32)
    return Batch(ids, ids, ids, borders, max(lengths))


@torch.no_grad()
def _packs(model: PreTrainedModel) -> bool:
    """Whether a model takes packed attention; whether rightly, only numbers could tell."""
    before = model.config._attn_implementation
    try:
        model.set_attn_implementation(PACKED)
        with Fused():
            hidden_states(model, _batch([2, 2]))
    except UnpackableError:
        return False
    finally:
        model.set_attn_implementation(before)
    return True


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    leaves = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor) and leaf.is_meta]
    return [leaf.untyped_storage() for leaf in leaves]
