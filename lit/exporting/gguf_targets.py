"""The tensors of a GGUF file that an adapter's layers update."""

from typing import NamedTuple

import torch
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, MODEL_TENSOR, get_tensor_name_map
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from lit.messages import tr, tr_mark
from lora.config import ConfigError
from lora.injection import lora_layers

MERGE = tr_mark(
    "use --format merged, and convert that folder with llama.cpp's convert_hf_to_gguf.py"
)
"""The way to GGUF for adapters that a LoRA GGUF cannot hold."""


class Architecture(NamedTuple):
    """A model family in llama.cpp, and the order of its weights' rows there."""

    kind: MODEL_ARCH
    interleaved: bool
    """Whether the two rows of queries and keys that RoPE rotates together are adjacent."""


ARCHITECTURES = {
    "llama": Architecture(MODEL_ARCH.LLAMA, interleaved=True),
    "mistral": Architecture(MODEL_ARCH.LLAMA, interleaved=True),
    "qwen2": Architecture(MODEL_ARCH.QWEN2, interleaved=False),
    "qwen3": Architecture(MODEL_ARCH.QWEN3, interleaved=False),
}
"""Architectures by transformers' ``model_type``."""


class TargetTensor(NamedTuple):
    """The base model's tensor in a GGUF file that an adapted layer updates."""

    name: str
    row_order: Tensor
    """(out,) row i of the tensor is row ``row_order[i]`` of the layer's weight."""


def architecture_of(config: PretrainedConfig) -> Architecture:
    """Return a model's architecture in llama.cpp.

    Raises:
        ConfigError: The model's type is not in ARCHITECTURES.
    """
    if config.model_type not in ARCHITECTURES:
        raise ConfigError(
            tr(
                "the base is of type {model_type}, and --format gguf supports {architectures}: "
                "{merge}",
                model_type=config.model_type,
                architectures=", ".join(ARCHITECTURES),
                merge=tr(MERGE),
            )
        )
    return ARCHITECTURES[config.model_type]


def target_tensors(model: PreTrainedModel) -> dict[str, TargetTensor]:
    """Return the tensor in a GGUF file of each adapted layer, by the layer's path in the model.

    RoPE in transformers rotates row i of a head together with row i + half; in ``interleaved``
    families llama.cpp stores the two next to each other. The rows of B are those of the weight,
    so they are reordered too. The columns of A are the layer's inputs, which keep their order.

    Raises:
        ConfigError: A layer has no tensor there.
    """
    config, architecture = model.config, architecture_of(model.config)
    names = get_tensor_name_map(architecture.kind, config.num_hidden_layers)
    heads = {
        MODEL_TENSOR.ATTN_Q: config.num_attention_heads,
        MODEL_TENSOR.ATTN_K: config.num_key_value_heads,
    }
    targets = {}
    for path, layer in lora_layers(model):
        type_and_name = names.get_type_and_name(path)
        if type_and_name is None:
            kind = MODEL_ARCH_NAMES[architecture.kind]
            raise ConfigError(
                tr(
                    "a GGUF file of {kind} has no tensor for {path}: {merge}",
                    kind=kind,
                    path=path,
                    merge=tr(MERGE),
                )
            )
        tensor_type, name = type_and_name
        order = torch.arange(layer.out_features)
        if architecture.interleaved and tensor_type in heads:
            order = order.view(heads[tensor_type], 2, -1).transpose(1, 2).flatten()
        targets[path] = TargetTensor(name, order)
    return targets
