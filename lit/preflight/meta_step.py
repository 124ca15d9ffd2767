"""The memory of a training step, traced on the meta device: tensors have sizes but no values."""

import weakref
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from data.types import Batch
from lit.device.memory import LARGEST
from lit.fast_layers.table import use_fast_layers
from lit.model.loss import sum_at
from lit.model.preparation import use_checkpointing
from lit.packing.hidden_states import hidden_states, never_shares
from lit.packing.pack import restored_attention, use_packed


class StepMemory(NamedTuple):
    """What a training step holds besides the model, in bytes."""

    activations: int
    """Tensors that are held when the backward pass begins."""
    peak: int
    """The most that is held at any time, including the gradients of trainable parameters."""
    made: int
    """Tensors below LARGEST bytes that the forward pass makes, held or freed."""


class LiveBytes(TorchDispatchMode):
    """A mode that counts the bytes of meta tensors created inside it that are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = self.made = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = {id(storage) for storage in _storages((args, kwargs))}
        outputs = func(*args, **(kwargs or {}))
        for storage in _storages(outputs):
            # An output may be a view of an input.
            if id(storage) not in inputs and id(storage) not in self._alive:
                self._add(storage)
        return outputs

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        self._alive.add(key)
        self.bytes += size
        self.peak = max(self.peak, self.bytes)
        self.made += size if size < LARGEST else 0
        # The Python object of a storage lives as long as the storage, also inside autograd.
        weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.bytes -= size


class FusedAttention(TorchFunctionMode):
    """A mode in which attention allocates no score matrix, as the fused kernels of CPU and GPU do.

    On the meta device, torch would take the unfused path.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        options = dict(zip(("attn_mask", "dropout_p", "is_causal"), args[3:], strict=False))
        options |= kwargs or {}
        # A CPU has no fused kernel with dropout either.
        if options.get("dropout_p"):
            return func(*args[:3], **options)
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        # This kernel takes grouped key heads as they are and has no argument for it.
        options.pop("enable_gqa", None)
        if options.get("attn_mask") is not None:
            options["attn_mask"] = options["attn_mask"].to(args[0].dtype)
        return kernel(*args[:3], **options)[0]


def trace_step(
    model: PreTrainedModel,
    lengths: Sequence[int],
    labels: int,
    gradient_checkpointing: bool,
    paths: Sequence[tuple[int, ...]] = (),
) -> StepMemory:
    """Run the forward and the backward pass of a model on the meta device.

    Args:
        model: On the meta device, with adapters.
        lengths: Tokens of each segment of the micro-batch.
        labels: Labeled tokens of the micro-batch.
        gradient_checkpointing: As in ``LoRAModule``.
        paths: The segments of each row, as in ``Batch``.

    Raises:
        ConfigError: The family cannot compute activations twice, and it is asked to.
        RuntimeError: The sizes of the model's tensors depend on values.
    """
    batch = _meta_batch(lengths, paths)
    # Some families search the token values for padding; meta tensors have no values.
    with suppress(StrictDataclassError):  # some configs must name a token
        model.config.pad_token_id = None
    if _accepts_packing(model):
        use_packed(model)
    if batch.paths and never_shares(model, batch.row_lengths):
        batch = _meta_batch(batch.row_lengths)
    if gradient_checkpointing:
        # The recomputed forward passes need the attention mode as well.
        use_checkpointing(model, lambda: (nullcontext(), FusedAttention()))
    else:
        use_fast_layers(model, ["gated MLP"])
    model.train()
    targets = torch.empty(labels, dtype=torch.int64, device="meta")
    with LiveBytes() as live, FusedAttention():
        hidden = hidden_states(model, batch)[0]
        activations, made = live.bytes, live.made
        sum_at(model, hidden.index_select(0, targets), targets).backward()
    return StepMemory(activations, live.peak, made)


def _meta_batch(lengths: Sequence[int], paths: Sequence[tuple[int, ...]] = ()) -> Batch:
    ids = torch.empty((1, sum(lengths)), dtype=torch.int64, device="meta")
    batch = Batch(ids, ids, ids, ids[0], ids[0], ids[0], tuple(lengths))
    return replace(batch, paths=tuple(paths), seen=ids[0], cu_seen=ids[0]) if paths else batch


def cannot_share(model: PreTrainedModel) -> str | None:
    """Return why a model on the meta device cannot share beginnings; None if it seems to."""
    with restored_attention(model):
        if _accepts_packing(model):
            use_packed(model)
        return never_shares(model, (1,))


@torch.no_grad()
def _accepts_packing(model: PreTrainedModel) -> bool:
    """Return whether a model runs with packed attention; only real values show if it is right."""
    try:
        with restored_attention(model), FusedAttention():
            use_packed(model)
            hidden_states(model, _meta_batch([2, 2]))
    # As in ``pack``, any error means that the family does not know rows that lie end to end.
    except Exception:
        return False
    return True


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    leaves = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor) and leaf.is_meta]
    return [leaf.untyped_storage() for leaf in leaves]
