"""Bytes that one process sends in an optimizer step."""

from dataclasses import dataclass

from benchmarks.scale.bases import Base, decoder_layers, empty
from lora.config import LoRAConfig
from lora.inject import inject, trainable_parameters


@dataclass(frozen=True)
class Sizes:
    """What can be sent of a model, in bytes.

    Args:
        blocks: The base's weights within blocks.
        embeddings: Those of the input, where the head has a matrix of its own.
        outside: Its weights that are in neither: the head, the last norm.
        adapter: A and B, or their gradients.
        layers: Blocks.
    """

    blocks: int
    embeddings: int
    outside: int
    adapter: int
    layers: int

    @property
    def base(self) -> int:
        """The base's weights, or their gradients."""
        return self.blocks + self.embeddings + self.outside


def sizes(base: Base, r: int) -> Sizes:
    """The sizes of a base in bf16 with float32 adapters on all linear layers."""
    model = empty(base)
    layers = decoder_layers(model)
    whole = sum(p.nbytes for p in model.parameters())
    blocks = sum(p.nbytes for layer in layers for p in layer.parameters())
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    embeddings = 0 if embedding is head else embedding.nbytes
    inject(model, LoRAConfig(r=r, target_modules="all-linear"))
    adapter = sum(p.nbytes for p in trainable_parameters(model).values())
    return Sizes(blocks, embeddings, whole - blocks - embeddings, adapter, len(layers))


def once(amount: int, world_size: int) -> float:
    """What a process sends of a ring's all-gather or reduce-scatter of an amount."""
    return amount * (world_size - 1) / world_size


def ddp(gradients: int, world_size: int) -> float:
    """An optimizer step under DDP: one ring all-reduce, however many micro-batches there are."""
    return 2 * once(gradients, world_size)


def fsdp(sizes: Sizes, world_size: int, micro_batches: int = 1) -> float:
    """An optimizer step under FSDP2 with a frozen base.

    In every micro-batch, blocks and embeddings are gathered to go forward and again to go back,
    the head once. The gradients of the adapters, which are whole, are summed once a step.
    """
    gathered = micro_batches * once(sizes.base + sizes.blocks + sizes.embeddings, world_size)
    return gathered + ddp(sizes.adapter, world_size)


def fsdp_in_full(sizes: Sizes, world_size: int, micro_batches: int = 1) -> float:
    """The same when every weight trains: in every micro-batch the gradients are shared out too."""
    gathered = 2 * sizes.base + sizes.blocks + sizes.embeddings
    return micro_batches * once(gathered, world_size)
