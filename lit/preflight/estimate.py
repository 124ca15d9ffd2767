"""How much memory a run will need, worked out from the model's config alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from lit.model.base import locate
from lit.model.loss import CHUNK
from lit.preflight.meta_step import rehearse
from lit.run.memory import used
from lit.train.module import PRECISIONS, LoRAModule
from lora.config import ConfigError
from lora.inject import ParameterCount, count_parameters, inject, lora_layers, trainable_parameters
from lora.targets import linear_layers

BLOCK = 256
"""Numbers that share a scale in an optimizer of 8 bits."""
SMALLEST = 4096
"""Tensors with fewer numbers keep states of 32 bits there."""


@dataclass(frozen=True)
class Estimate:
    """The parts of a run's peak memory, in bytes.

    Args:
        size: Parameters that train, and all.
        parts: What is held when the most is, by name.
        loading: The peak before training, when weights that will be quantized are still dense.
        whole: Whether the activations are among the parts; some families' sizes depend on numbers.
    """

    size: ParameterCount
    parts: dict[str, int]
    loading: int
    whole: bool = True

    @property
    def peak(self) -> int:
        """The most that is needed at any time."""
        return max(self.loading, sum(self.parts.values()))


def estimate(
    module: LoRAModule, precision: str, lengths: Sequence[int], labels: int, device: torch.device
) -> Estimate:
    """Estimate a run's peak memory on its device; no weight is loaded.

    Args:
        module: The run's settings.
        precision: A key of ``lit.train.module.PRECISIONS``.
        lengths: Tokens of each row of the largest micro-batch.
        labels: Its labeled tokens.
        device: Where it trains. On a CPU the libraries of this process count as well; on a GPU
            what CUDA keeps for itself does not.

    Raises:
        ConfigError: The base or the adapter cannot be, or the precision is unknown.
    """
    libraries = used() if device.type == "cpu" else 0
    if precision not in PRECISIONS:
        raise ConfigError(f"trainer.precision is {precision}; there are {', '.join(PRECISIONS)}")
    model = skeleton(module.base, module.revision, PRECISIONS[precision])
    return estimate_of(model, module, lengths, labels, device, libraries)


def estimate_of(
    model: PreTrainedModel,
    module: LoRAModule,
    lengths: Sequence[int],
    labels: int,
    device: torch.device,
    libraries: int = 0,
) -> Estimate:
    """The same of a base that need not be anywhere.

    Args:
        model: The base on the meta device, in the dtype it computes in; gets the adapter put on.
        module, lengths, labels, device: As in ``estimate``.
        libraries: What the process takes beside the run.

    Raises:
        ConfigError: The adapter cannot be.
    """
    dtype = model.dtype
    dense = _bytes(model)
    quantized = dense - sum(
        _saved(layer, module.quantize) for layer in linear_layers(model).values()
    )
    inject(model, module.lora)
    size, trained = count_parameters(model), list(trainable_parameters(model).values())
    adapter = sum(p.nbytes for p in trained)
    # DoRA and PiSSA keep numbers beside those that train.
    adapter += sum(
        b.nbytes for _, layer in lora_layers(model) for b in layer.buffers(recurse=False)
    )
    widest = max((layer.weight.numel() for _, layer in lora_layers(model)), default=0)
    try:
        step = rehearse(model, lengths, labels, module.gradient_checkpointing)
    except RuntimeError:
        # A mixture of experts, say: which of them a token goes to, only numbers tell.
        step = None
    head = model.get_output_embeddings().weight
    # The loss makes them inside one operation, into which the meta device does not look.
    logits = min(CHUNK, labels) * head.shape[0] * 4
    if dtype != torch.float32 and device.type == "cpu":
        logits += head.numel() * 4  # there, a float32 copy of the vocabulary matrix is made too
    passing = max(logits, step.peak - step.kept) if step else logits
    if module.quantize:
        passing += widest * dtype.itemsize
    parts = {
        f"weights, {module.quantize or str(dtype).removeprefix('torch.')}": quantized,
        "adapter, float32": adapter,
        "its gradients": sum(p.nbytes for p in trained),
        f"its optimizer, {module.optimizer}": sum(
            _states(p.numel(), module.optimizer) for p in trained
        ),
        f"activations of {sum(lengths)} tokens": step.kept if step else 0,
        f"passing: logits of {min(CHUNK, labels)} tokens, gradients of activations": passing,
    }
    if libraries:
        parts["Python and libraries"] = libraries
    return Estimate(
        size, parts, loading=dense + libraries if module.quantize else 0, whole=step is not None
    )


def skeleton(base: str, revision: str | None, dtype: torch.dtype) -> PreTrainedModel:
    """A base model on the meta device: every layer, and no weight.

    Raises:
        ConfigError: There is no such model, or it runs code of its own.
    """
    where = locate(base, revision)
    try:
        config = AutoConfig.from_pretrained(base, trust_remote_code=False, **where)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{base} does not load: {str(error).splitlines()[0]}") from None


def _bytes(model: nn.Module) -> int:
    return sum(p.nbytes for p in model.parameters())


def _saved(layer: nn.Linear, kind: str | None) -> int:
    """What a layer's weight takes less when it is held in 4 or 8 bits."""
    weight = layer.weight
    if kind is None:
        return 0
    if kind == "int8":
        return weight.nbytes - weight.numel() - 4 * weight.shape[0]
    # 64 numbers share a scale of 8 bits, and 256 scales one of 32.
    return weight.nbytes - weight.numel() // 2 - weight.numel() // 64 - weight.numel() // 4096


def _states(numbers: int, optimizer: str) -> int:
    """Bytes of an optimizer's states of a tensor."""
    if optimizer == "sgd":
        return 0
    if optimizer == "adamw" or numbers < SMALLEST:
        return 8 * numbers
    return 2 * (numbers + 4 * -(-numbers // BLOCK))
