"""How a base model is quantized: in its folder, while it loads, and as an adapter remembers it."""

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import (
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
)

from lit.messages import tr, tr_n
from lit.run.console import print_rank0
from lora.base import (
    INT8_OUTLIER,
    QUANTIZATIONS,
    check_quantization,
    dense_copy,
    dense_weight,
    is_quantized,
    parameter_size,
    set_compute_dtype,
)
from lora.config import ConfigError
from lora.families.experts import expert_parameters
from lora.storage.peft_format import printable
from lora.targets import expert_layers, linear_layers

BITSANDBYTES = "bitsandbytes"
"""What a model's config calls the one method whose folders load here."""


def stored_quantization(config: PretrainedConfig, base: str) -> str | None:
    """Return in which of ``lora.base.QUANTIZATIONS`` a model's folder stores its linear layers.

    Args:
        config: The model's config.
        base: The model's name, for the error.

    Returns:
        None if they are stored dense.

    Raises:
        ConfigError: They are stored in another way.
    """
    settings = getattr(config, "quantization_config", None) or getattr(
        config.get_text_config(decoder=True), "quantization_config", None
    )
    if settings is None:
        return None
    settings = settings if isinstance(settings, dict) else settings.to_dict()
    if settings.get("load_in_4bit"):
        kind = settings.get("bnb_4bit_quant_type", "fp4")
    else:
        kind = "int8" if settings.get("load_in_8bit") else None
    method = settings.get("quant_method", BITSANDBYTES if kind else None)
    if method != BITSANDBYTES or kind not in QUANTIZATIONS:
        shown = printable(str(kind if kind and method == BITSANDBYTES else method), 80)
        raise ConfigError(
            tr(
                "{base} is stored in {shown}, which does not load here: take the 16-bit model "
                "that it was made from and set `quantize` to nf4, or a model that bitsandbytes "
                "quantized (bnb-4bit)",
                base=base,
                shown=shown,
            )
        )
    return kind


def quantization_of(config: PretrainedConfig, base: str, quantize: str | None) -> str | None:
    """Return how a model's linear layers will be stored: as in its folder, or as a person asks.

    Args:
        config, base: As in ``stored_quantization``.
        quantize: What the person asks for.

    Raises:
        ConfigError: The folder stores them in another way than the person asks for.
    """
    stored = stored_quantization(config, base)
    if stored and quantize not in (None, stored):
        raise ConfigError(
            tr(
                "`quantize` is {quantize}, and the weights of {base} are stored in {stored}: "
                "leave `quantize` out, or give the 16-bit model that it was made from",
                quantize=quantize,
                base=base,
                stored=stored,
            )
        )
    return stored or quantize


def quantization_settings(
    model: PreTrainedModel, kind: str, dtype: torch.dtype, device: torch.device
) -> BitsAndBytesConfig:
    """Return how transformers quantizes the layers that adapters go on, as it loads them.

    Args:
        model: The model without weights.
        kind: One of ``lora.base.QUANTIZATIONS``.
        dtype: The dtype to compute in.
        device: The device to load onto.

    Raises:
        ConfigError: As ``lora.base.check_quantization``.
    """
    layers = linear_layers(model)
    check_quantization(kind, device, layers.values())
    # The output head, the layers of towers, and layers whose weight is read without calling them.
    others = [
        path
        for path, layer in model.named_modules(remove_duplicate=False)
        if isinstance(layer, nn.Linear) and path not in layers
    ]
    return BitsAndBytesConfig(
        load_in_4bit=kind != "int8",
        load_in_8bit=kind == "int8",
        llm_int8_threshold=INT8_OUTLIER,
        # Regular expressions; without ^ and $ a name would also match the ends of others.
        llm_int8_skip_modules=[f"^{re.escape(path)}$" for path in others],
        bnb_4bit_quant_type=kind if kind != "int8" else "nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def finish(model: Any, base: str, dtype: torch.dtype) -> None:
    """Make a model that transformers loaded quantized an ordinary one: it moves, trains and merges.

    Args:
        model: The model; it is changed in place.
        base: Its name, for the error.
        dtype: The dtype to compute in.

    Raises:
        ConfigError: Its folder stores weights dense that its config calls quantized.
    """
    model.hf_quantizer.remove_quantization_config(model)
    head, dense = model.get_output_embeddings(), []
    if isinstance(head, nn.Linear) and is_quantized(head):
        set_compute_dtype(head, dtype)
        # The loss reads its weight.
        model.set_output_embeddings(dense_copy(head, dense_weight(head)))
        print_rank0(tr("model  the output head is stored quantized and is used dense"), note=True)
    for path, layer in linear_layers(model).items():
        if is_quantized(layer):
            set_compute_dtype(layer, dtype)
        elif type(layer).__module__.startswith(BITSANDBYTES):
            raise ConfigError(
                tr(
                    "config.json of {base} says that its layers are quantized, and the weight "
                    "of {path} is dense: take quantization_config out of it, or download the "
                    "model again",
                    base=base,
                    path=path,
                )
            )
        else:
            dense.append(path)
    kept = []
    if dense:
        layers = tr_n("{n} linear layer", "{n} linear layers", len(dense))
        kept.append(f"{layers}: {listed(dense)}")
    if experts := describe_experts(model):
        kept.append(experts)
    if kept:
        print_rank0(tr("model  not quantized: {kept}", kept="; ".join(kept)), note=True)


def describe_experts(model: nn.Module) -> str:
    """Return the share of a model's parameters in experts, which stay dense; empty for none."""
    parameters = [
        layer.get_parameter(name)
        for layer in expert_layers(model).values()
        for name in expert_parameters(layer)
    ]
    if not parameters:
        return ""
    size = sum(map(parameter_size, parameters))
    share = size / sum(map(parameter_size, model.parameters()))
    dtype = str(parameters[0].dtype).removeprefix("torch.")
    return tr("experts: {share:.0%} of the parameters stay in {dtype}", share=share, dtype=dtype)


def dense_parameters(model: PreTrainedModel) -> Iterator[nn.Parameter]:
    """Yield every parameter but the weights of quantized layers."""
    quantized = {id(layer.weight) for layer in linear_layers(model).values() if is_quantized(layer)}
    return (tensor for tensor in model.parameters() if id(tensor) not in quantized)


def listed(names: Any) -> str:
    """Return the first three of some names, for a line of text."""
    first = [printable(name, 200) for name in sorted(names)[:3]]
    return ", ".join(first) + (", …" if len(names) > len(first) else "")
