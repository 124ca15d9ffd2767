"""The memory of a run by parts, on one device and on one of several that share the base."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cache

import torch
from torch import Tensor

from benchmarks.scale.bases import BASES, Base, decoder_layers, empty
from lit.preflight.estimate import estimate_model_memory
from lit.train.module import LoRAModule
from lora.config import LoRAConfig
from lora.inject import ParameterCount

KINDS = {"fp32": torch.float32, "bf16": torch.bfloat16, "NF4": torch.bfloat16}
"""How a base is held, and what it computes in."""
GPU = torch.device("cuda")
R = 16
TOKENS = 4096
IN_FLIGHT = 2
"""Blocks of the model that are whole at a time: one is computed while the next is gathered."""


@dataclass(frozen=True)
class Footprint:
    """What one device holds when the most is, in bytes.

    Args:
        weights: The base.
        adapter, gradients, optimizer: Of what trains, in float32.
        activations: What is kept for the backward pass.
        passing: Logits, gradients of activations, the weight that is just dequantized.
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
    base: Base,
    kind: str,
    r: int,
    lengths: Sequence[int],
    labels: int,
    gradient_checkpointing: bool = False,
) -> tuple[Footprint, ParameterCount]:
    """The parts of a run on one GPU by ``lit.check``'s estimate, and its parameters.

    Args:
        base: The base model.
        kind: A key of KINDS.
        r: The rank of adapters on all linear layers.
        lengths: Tokens of each row of a micro-batch.
        labels: How many of these are learned.
        gradient_checkpointing: As in ``LoRAModule``.
    """
    settings = LoRAModule(
        base="",
        lora=LoRAConfig(r=r, target_modules="all-linear"),
        quantize="nf4" if kind == "NF4" else None,
        gradient_checkpointing=gradient_checkpointing,
    )
    model = empty(base, KINDS[kind])
    found = estimate_model_memory(model, settings, lengths, labels, GPU)
    return Footprint(*found.parts.values()), found.parameters


@cache
def of_known(name: str, kind: str, gradient_checkpointing: bool) -> Footprint:
    """The same of a key of BASES with adapters of rank R and a micro-batch of TOKENS."""
    return footprint(BASES[name], kind, R, [TOKENS], TOKENS // 2, gradient_checkpointing)[0]


def shard(whole: Footprint, base: Base, kind: str, world_size: int) -> Footprint:
    """The same run on one of several devices, each of which holds a share of the base.

    FSDP2 cuts each frozen tensor along its first dimension; a short last share is filled up. Blocks
    and input embeddings are put together to be computed with, and let go; the head stays together
    from a micro-batch's begin to its end. The adapter is whole on every device, and activations are
    each device's own.

    Args:
        whole: The run on one device, not of a quantized base.
        base, kind: What it is a run of.
        world_size: Devices.
    """
    if world_size == 1:
        return whole
    model = empty(base, KINDS[kind])
    weights = sum(-(-p.shape[0] // world_size) * (p.nbytes // len(p)) for p in model.parameters())
    sizes = [_bytes(block.parameters()) for block in decoder_layers(model)]
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    tied = embedding is head
    staying = _bytes(model.parameters()) - sum(sizes) - (0 if tied else embedding.nbytes)
    passing = max(sum(sizes[:IN_FLIGHT]), sizes[0] + (0 if tied else embedding.nbytes))
    return replace(whole, weights=weights, gathered=staying + passing)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.nbytes for t in tensors)
