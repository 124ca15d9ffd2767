"""The memory of a run by parts, on one device and on one of several that share the base."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace

import torch
from torch import Tensor

from benchmarks.bases import Base, decoder_layers, empty
from lit.estimate import estimate_of
from lit.module import LoRAModule
from lora.config import LoRAConfig
from lora.inject import Count, inject

KINDS = {"fp32": torch.float32, "bf16": torch.bfloat16, "NF4": torch.bfloat16}
"""How a base is held, and what it computes in."""
GPU = torch.device("cuda")
IN_FLIGHT = 2
"""Blocks of the model that are whole at a time: one is computed while the next is gathered."""


@dataclass(frozen=True)
class Footprint:
    """What one device holds when the most is, in bytes.

    Args:
        weights: The base.
        adapter, gradients, optimizer: Of what trains, in float32.
        activations: What is kept for the backward pass.
        passing: Logits, gradients of activations, the weight that is just dequantised.
        gathered: What is put together of other devices' shares to be computed with.
    """

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    passing: int
    gathered: int = 0

    @property
    def total(self) -> int:
        """The peak."""
        return sum(astuple(self))


def footprint(
    base: Base, kind: str, r: int, lengths: Sequence[int], gradient_checkpointing: bool = False
) -> tuple[Footprint, Count]:
    """The parts of a run on one GPU by ``lit.check``'s estimate, and its parameters.

    Args:
        base: The base model.
        kind: A key of KINDS.
        r: The rank of adapters on all linear layers.
        lengths: Tokens of each row of a micro-batch, half of which are learned.
        gradient_checkpointing: As in ``LoRAModule``.
    """
    settings = LoRAModule(
        base="",
        lora=LoRAConfig(r=r, target_modules="all-linear"),
        quantize="nf4" if kind == "NF4" else None,
        gradient_checkpointing=gradient_checkpointing,
    )
    model = empty(base, KINDS[kind])
    found = estimate_of(model, settings, lengths, sum(lengths) // 2, GPU)
    return Footprint(*found.parts.values()), found.size


def shard(whole: Footprint, base: Base, kind: str, r: int, world_size: int) -> Footprint:
    """The same run on one of several devices, each of which holds a share of base and adapter.

    FSDP2 cuts each tensor along its first dimension; a short last share is filled up. A block is
    put together to be computed with, and let go; what stands outside blocks (embeddings, head)
    stays together from a micro-batch's begin to its end. Activations are each device's own.

    Args:
        whole: The run on one device, not of a quantised base.
        base, kind, r: What it is a run of.
        world_size: Devices.
    """
    if world_size == 1:
        return whole
    model = empty(base, KINDS[kind])
    inject(model, LoRAConfig(r=r, target_modules="all-linear"))
    trained = [p for p in model.parameters() if p.requires_grad]
    frozen = [p for p in model.parameters() if not p.requires_grad]
    blocks = [_bytes(block.parameters()) for block in decoder_layers(model)]
    gathered = min(IN_FLIGHT, len(blocks)) * max(blocks)
    gathered += _bytes(model.parameters()) - sum(blocks)
    adapter = _share(trained, world_size)
    return replace(
        whole,
        weights=_share(frozen, world_size),
        adapter=adapter,
        gradients=adapter,
        optimizer=2 * adapter,
        gathered=gathered,
    )


def _share(tensors: Iterable[Tensor], world_size: int) -> int:
    return sum(-(-t.shape[0] // world_size) * (t.nbytes // t.shape[0]) for t in tensors)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.nbytes for t in tensors)
