"""Which of transformers' classes a base model loads by; models that see or hear are kept whole."""

from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    PretrainedConfig,
    PreTrainedModel,
)

from lit.messages import tr, tr_mark
from lora.config import ConfigError
from lora.storage.peft_format import printable

CLASSES = (
    # Some models that see are also known as causal language models, by a class of their text part
    # alone. Adapters of that class have other names than those that PEFT and vLLM look for.
    (MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoModelForImageTextToText),
    (MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM),
    (MODEL_FOR_MULTIMODAL_LM_MAPPING, AutoModelForMultimodalLM),
)


def model_class(config: PretrainedConfig, base: str) -> Any:
    """Return the class whose ``from_pretrained`` and ``from_config`` make a base model.

    Args:
        config: The model's config.
        base: The model's name, for the error.

    Raises:
        ConfigError: It does not continue a text.
    """
    kind = printable(str(config.model_type), 80)
    if config.is_encoder_decoder or config.get_text_config(decoder=True).is_encoder_decoder:
        raise ConfigError(
            tr(
                "{base} is of the type {kind}, which reads a text with an encoder and writes "
                "another: only models that continue a text can be trained. {take}",
                base=base,
                kind=kind,
                take=tr(TAKE),
            )
        )
    for mapping, made_by in CLASSES:
        if type(config) in mapping:
            return made_by
    raise ConfigError(
        tr(
            "{base} is of the type {kind}, which transformers does not know as a language model "
            "that continues a text. {take}",
            base=base,
            kind=kind,
            take=tr(TAKE),
        )
    )


def loader_of(model: PreTrainedModel) -> str:
    """Return the name of the class of transformers by which others load a model."""
    return model_class(model.config, type(model).__name__).__name__


TAKE = tr_mark("Take a model for text generation, such as Qwen/Qwen2.5-0.5B-Instruct")
"""The end of each refusal of a model's type."""


def skeleton(config: PretrainedConfig, base: str, dtype: torch.dtype) -> PreTrainedModel:
    """Build a model on the meta device: all layers, and no weights.

    Raises:
        ConfigError: As ``model_class``.
    """
    with torch.device("meta"):
        return model_class(config, base).from_config(config, dtype=dtype, trust_remote_code=False)


def stored_dtype(config: PretrainedConfig) -> torch.dtype:
    """Return the dtype in which the weights of a model are stored."""
    for part in (config, config.get_text_config(decoder=True)):
        if isinstance(part.dtype, torch.dtype):
            return part.dtype
    return torch.float32


def describe_compression(config: PretrainedConfig, longest_row: int | None) -> str:
    """Return that layers which shorten what lies far behind never act; empty if they do.

    Args:
        config: The model's config.
        longest_row: Tokens of the longest row, or None if it is not known.
    """
    text = config.get_text_config()
    rates: dict[str, int] = getattr(text, "compress_rates", None) or {}
    used = {rates[kind] for kind in getattr(text, "layer_types", None) or () if kind in rates}
    waiting = sorted(rate for rate in used if longest_row is not None and longest_row <= rate)
    if not waiting:
        return ""
    return tr(
        "some attention layers of {model_type} compress every {waiting} tokens, and the "
        "longest row has {longest_row}: adapters on their compressors learn nothing from "
        "this data",
        model_type=text.model_type,
        waiting=waiting[-1],
        longest_row=longest_row,
    )
