"""The peak memory of a run, estimated from the model's config alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import nn
from transformers import PreTrainedModel

from lit.device.memory import keeps_freed_blocks, peak_memory
from lit.device.precision import BF16_FROZEN, base_dtype
from lit.fast_layers.table import use_bf16_products
from lit.messages import tr
from lit.model.architecture import skeleton, stored_dtype
from lit.model.base import locate
from lit.model.loading import load_config, summary
from lit.model.loss import CHUNK
from lit.model.quantization import quantization_of
from lit.preflight.coverage import shares_not_adapted
from lit.preflight.meta_step import trace_step
from lit.train.module import LoRAModule
from lora.config import ConfigError
from lora.injection import (
    ParameterCount,
    count_parameters,
    inject,
    lora_layers,
    trainable_parameters,
)
from lora.storage.continuing import check_layers
from lora.targets import linear_layers

STATE_BLOCK = 256
"""Values that share a scale in the states of an 8-bit optimizer."""
KEPT = 0.2
"""Bytes by which glibc's heap grows for each byte that a forward pass makes, measured.

A freed block is a little too small for a new one of its size, which must begin at a multiple of 64.
So a part of what a layer frees is lost to the next layer (benchmarks/RESULTS.md).
"""
MIN_8BIT_SIZE = 4096
"""An 8-bit optimizer keeps 32-bit states for tensors with fewer values."""


@dataclass(frozen=True)
class MemoryEstimate:
    """The parts of a run's peak memory, in bytes.

    Args:
        parameters: Trainable parameters, and all.
        parts: The parts of the training peak, by name.
        loading: The peak while a base is quantized; 0 for a dense one, which takes what it holds.
        host: The peak of the machine's own memory while a base is loaded onto a GPU; else 0.
        activations_known: Whether the parts include activations. False for model families in
            which their size depends on the values of the weights.
        not_adapted: The shares of the base that no adapter changes, by kind.
    """

    parameters: ParameterCount
    parts: dict[str, int]
    loading: int
    host: int = 0
    activations_known: bool = True
    not_adapted: dict[str, float] = field(default_factory=dict)

    @property
    def peak(self) -> int:
        """The peak of the whole run."""
        return max(self.loading, sum(self.parts.values()))


def estimate_memory(
    module: LoRAModule,
    precision: str,
    lengths: Sequence[int],
    labels: int,
    device: torch.device,
    paths: Sequence[tuple[int, ...]] = (),
) -> MemoryEstimate:
    """Estimate a run's peak memory on its device, without loading weights.

    Args:
        module: The run's settings.
        precision: A key of ``lit.device.precision.PRECISIONS``.
        lengths: Tokens of each segment of the largest micro-batch.
        labels: Labeled tokens of that micro-batch.
        device: The device that trains. On a CPU the estimate includes the libraries of this
            process; on a GPU it excludes what CUDA itself takes.
        paths: The segments of each row of that micro-batch, as in ``Batch``.

    Raises:
        ConfigError: The base or the adapter does not exist, or the precision is unknown.
    """
    model = meta_model(module.base, module.revision, base_dtype(precision))
    size = lengths, labels, device, peak_memory(), paths
    if precision != BF16_FROZEN:
        return estimate_model_memory(model, module, *size)
    stored = stored_dtype(load_config(module.base, locate(module.base, module.revision)))
    wide = sum(p.nbytes for p in model.parameters())
    use_bf16_products(model.requires_grad_(False))
    estimate = estimate_model_memory(model, module, *size)
    if stored == torch.bfloat16:
        # All are loaded before they are rounded, without loss, and then freed.
        return replace(estimate, loading=wide + size[3])
    kept = sum(2 * layer.weight.nbytes for layer in linear_layers(model).values())
    return replace(estimate, parts=estimate.parts | {tr("weights in float32, too"): kept})


def estimate_model_memory(
    model: PreTrainedModel,
    module: LoRAModule,
    lengths: Sequence[int],
    labels: int,
    device: torch.device,
    libraries: int = 0,
    paths: Sequence[tuple[int, ...]] = (),
) -> MemoryEstimate:
    """Estimate the peak memory of training a model that is on the meta device.

    Args:
        model: The base, in the dtype it computes in. This function injects the adapter.
        module, lengths, labels, device, paths: As in ``estimate_memory``.
        libraries: Bytes of the machine's memory that the process takes besides the run.

    Raises:
        ConfigError: The adapter's settings do not fit the model.
    """
    dtype, kind = model.dtype, quantization_of(model.config, module.base, module.quantize)
    weights = sum(p.nbytes for p in model.parameters()) - sum(
        _saved_by_quantizing(layer, kind) for layer in linear_layers(model).values()
    )
    dtypes = " + ".join(sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters()}))
    largest_tensor = max(p.nbytes for p in model.parameters())
    lora = check_layers(model, module.adapter, module.lora) if module.adapter else module.lora
    inject(model, lora)
    not_adapted = shares_not_adapted(model)
    parameters, trainable = count_parameters(model), list(trainable_parameters(model).values())
    trainable_bytes = sum(p.nbytes for p in trainable)
    # DoRA and PiSSA keep buffers besides their trainable parameters.
    buffer_bytes = sum(
        buffer.nbytes for _, layer in lora_layers(model) for buffer in layer.buffers(recurse=False)
    )
    largest = max((layer.weight.numel() for _, layer in lora_layers(model)), default=0)
    states = sum(_optimizer_states(p.numel(), module.optimizer) for p in trainable)
    try:
        step = trace_step(model, lengths, labels, module.gradient_checkpointing, paths)
    except RuntimeError:
        step = None  # a mixture of experts routes tokens by values, which meta tensors lack
    temporary = _logits(model, labels, device)
    if step:
        temporary = max(temporary, step.peak - step.activations)
    if kind:
        # One weight at a time is dequantized.
        temporary += largest * dtype.itemsize
    parts = {
        tr("weights, {kind}", kind=kind or dtypes): weights,
        tr("adapter, float32"): trainable_bytes + buffer_bytes,
        tr("gradients of the adapter"): trainable_bytes,
        tr("optimizer states, {optimizer}", optimizer=module.optimizer): states,
        tr("activations of {lengths} tokens", lengths=sum(lengths)): step.activations
        if step
        else 0,
        tr(
            "temporary: logits of {chunk} tokens, gradients of activations",
            chunk=min(CHUNK, labels),
        ): temporary,
    }
    if on_cpu := device.type == "cpu":
        parts[tr("Python and libraries")] = libraries
        if step and keeps_freed_blocks():
            parts[tr("freed blocks that glibc keeps")] = int(KEPT * step.made)
    # Tensors are quantized one by one: one is dense while the next is read.
    loading = weights + 2 * largest_tensor + (libraries if on_cpu else 0) if kind else 0
    # transformers reads a dense model with four threads.
    host = 0 if on_cpu else libraries + (2 if kind else 4) * largest_tensor
    return MemoryEstimate(parameters, parts, loading, host, step is not None, not_adapted)


def meta_model(base: str, revision: str | None, dtype: torch.dtype) -> PreTrainedModel:
    """Build a base model on the meta device: all layers, and no weights.

    Raises:
        ConfigError: There is no such model, or it needs remote code.
    """
    config = load_config(base, locate(base, revision))
    try:
        return skeleton(config, base, dtype)
    except (OSError, ValueError) as error:
        raise ConfigError(
            tr("{base} does not load: {summary}", base=base, summary=summary(error))
        ) from None


def _logits(model: PreTrainedModel, labels: int, device: torch.device) -> int:
    """Return the bytes of the loss, which one fused operation hides from a trace."""
    head = model.get_output_embeddings().weight
    logits = min(CHUNK, labels) * head.shape[0] * 4
    if model.dtype != torch.float32 and device.type == "cpu":
        logits += head.numel() * 4  # a CPU also copies the vocabulary matrix to float32
    return logits


def _saved_by_quantizing(layer: nn.Linear, kind: str | None) -> int:
    """Return the bytes that a weight of 4 or 8 bits takes less than the dense one."""
    weight = layer.weight
    if kind is None:
        return 0
    if kind == "int8":
        return weight.nbytes - weight.numel() - 4 * weight.shape[0]
    # 64 values share an 8-bit scale, and 256 scales share a 32-bit one.
    return weight.nbytes - weight.numel() // 2 - weight.numel() // 64 - weight.numel() // 4096


def _optimizer_states(size: int, optimizer: str) -> int:
    """Return the bytes of an optimizer's states for a tensor of ``size`` values."""
    if optimizer == "sgd":
        return 0
    if optimizer == "adamw" or size < MIN_8BIT_SIZE:
        return 8 * size
    return 2 * (size + 4 * -(-size // STATE_BLOCK))
