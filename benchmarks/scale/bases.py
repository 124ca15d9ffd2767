"""Well-known base models, written as the numbers of their configs; no weight is needed."""

from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from lora.targets import linear_layers


class Base(NamedTuple):
    """A base model.

    Args:
        family: transformers' name of it.
        numbers: What its config.json says beside the family's defaults.
        published: Parameters in 10⁹, as its model card says.
    """

    family: str
    numbers: dict[str, Any]
    published: float


def _numbers(
    vocabulary: int, hidden: int, inner: int, layers: int, heads: int, kv_heads: int, tied: bool
) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": hidden // heads,
        "tie_word_embeddings": tied,
    }


BASES: dict[str, Base] = {
    "SmolLM2 135M": Base("llama", _numbers(49152, 576, 1536, 30, 9, 3, True), 0.135),
    "Qwen2.5 0.5B": Base("qwen2", _numbers(151936, 896, 4864, 24, 14, 2, True), 0.49),
    "Qwen2.5 1.5B": Base("qwen2", _numbers(151936, 1536, 8960, 28, 12, 2, True), 1.54),
    "Qwen2.5 7B": Base("qwen2", _numbers(152064, 3584, 18944, 28, 28, 4, False), 7.61),
    "Llama 3.1 8B": Base("llama", _numbers(128256, 4096, 14336, 32, 32, 8, False), 8.03),
    "Qwen2.5 14B": Base("qwen2", _numbers(152064, 5120, 13824, 48, 40, 8, False), 14.7),
    "Qwen2.5 32B": Base("qwen2", _numbers(152064, 5120, 27648, 64, 40, 8, False), 32.5),
    "Llama 3.1 70B": Base("llama", _numbers(128256, 8192, 28672, 80, 64, 8, False), 70.6),
}


def empty(base: Base, dtype: torch.dtype = torch.bfloat16) -> PreTrainedModel:
    """A base on the meta device: every layer, and no weight."""
    config = AutoConfig.for_model(base.family, **base.numbers)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=dtype)


def decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The blocks that follow one another in a model, which are sharded one by one."""
    return list(model.base_model.get_submodule("layers").children())


def flops_of_a_token(
    model: PreTrainedModel, row: float, labeled: float, gradient_checkpointing: bool = False
) -> float:
    """Floating point operations of a token in training, with frozen weights.

    A frozen weight is met twice, forward and for the gradient of its input (4 operations a
    number); A and B a third time (6). Attention is causal and forms its scores once more when it
    goes back (2 products forward, 5 back). Checkpointing goes forward once more through all but
    the head. Softmax, norms and activations are not counted.

    Args:
        model: With adapters.
        row: Tokens of the row that the token is in.
        labeled: The share of tokens that have a label, and meet the vocabulary.
        gradient_checkpointing: As in ``LoRAModule``.
    """
    again = 2 if gradient_checkpointing else 0
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(layer.weight.numel() for layer in linear_layers(model).values())
    head = model.get_output_embeddings().weight.numel()
    width = model.config.num_attention_heads * model.config.head_dim
    scores = 2 * width * row / 2 * model.config.num_hidden_layers
    layers = (4 + again) * frozen + (6 + again) * trained + (7 + again) * scores
    return float(layers + 4 * head * labeled)
