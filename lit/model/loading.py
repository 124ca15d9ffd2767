"""Load a base model's weights straight to their device, all of them, and without a second copy."""

from typing import Any

import torch
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from lit.messages import tr, tr_n
from lit.model.architecture import model_class, skeleton, stored_dtype
from lit.model.quantization import (
    dense_parameters,
    finish,
    listed,
    quantization_of,
    quantization_settings,
    stored_quantization,
)
from lit.run.console import print_rank0
from lora.base import check_quantization, quant_state
from lora.config import ConfigError
from lora.storage.peft_format import printable
from lora.targets import linear_layers


def summary(error: Exception) -> str:
    """Return the type and the first line of a library's error about a stranger's file."""
    lines = str(error).splitlines() or [""]
    return printable(f"{type(error).__name__}: {lines[0]}")


def load_config(base: str, where: dict[str, object]) -> PretrainedConfig:
    """Load the config of a base model; no weights are loaded.

    Raises:
        ConfigError: It is broken, or the model needs code of its own.
    """
    try:
        return AutoConfig.from_pretrained(base, trust_remote_code=False, **where)
    except Exception as error:  # the libraries raise KeyError, TypeError, … for a broken file
        raise ConfigError(
            tr("the config of {base} does not load: {summary}", base=base, summary=summary(error))
        ) from None


def load_weights(
    base: str,
    where: dict[str, object],
    dtype: torch.dtype,
    quantize: str | None,
    device: torch.device,
) -> PreTrainedModel:
    """Load a base model, in eval mode.

    A weight to quantize is read, moved to the device and quantized before the next one is read.

    Args:
        base: A hub name or a local folder.
        where: Arguments of ``from_pretrained`` that say where it is.
        dtype, quantize, device: As in ``lit.model.base.load_base``.

    Raises:
        ConfigError: It does not load, lacks weights or has weights of other shapes, or it cannot be
            quantized so.
    """
    config = load_config(base, where)
    kind, stored = quantization_of(config, base, quantize), stored_quantization(config, base)
    loader = model_class(config, base)
    if kind:
        check_quantization(kind, device)
    try:
        # Lightning makes a GPU the default device, where transformers would build the model.
        with torch.device("cpu"):
            settings: dict[str, Any] = {}
            if kind and not stored:
                settings["quantization_config"] = quantization_settings(
                    skeleton(config, base, dtype), kind, dtype, device
                )
            loaded: Any = loader.from_pretrained(
                base,
                dtype=dtype,
                device_map={"": device},
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                trust_remote_code=False,
                **settings,
                **where,
            )
    except (ConfigError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # as above
        raise ConfigError(_why(base, error, stored, device)) from None
    model: PreTrainedModel = loaded[0]
    _check_complete(base, model, loaded[1])
    if kind is None:
        return model
    finish(model, base, dtype)
    for tensor in dense_parameters(model):
        if stored and tensor.dtype == stored_dtype(config):
            # transformers leaves a quantized folder's other weights in the dtype of the folder.
            tensor.data = tensor.data.to(dtype)
        elif not stored and device.type == "cpu":
            # A tensor that is still mapped keeps its file in memory, quantized weights included.
            tensor.data = tensor.data.clone()
    return model


def _why(base: str, error: Exception, stored: str | None, device: torch.device) -> str:
    if stored and isinstance(error, NotImplementedError):
        # transformers draws random values for missing weights, which it cannot in 8-bit integers.
        return tr(
            "{base} lacks weights of its quantized layers. Download the model again, or "
            "take one that is complete",
            base=base,
        )
    if "automatic conversion" in str(error):
        # transformers reports the reason to its log only, running out of memory included.
        return tr(
            "a weight of {base} cannot be converted or quantized: {type} has too little "
            "memory for it, or the file is damaged",
            base=base,
            type=device.type,
        )
    return tr("{base} does not load: {summary}", base=base, summary=summary(error))


def _check_complete(base: str, model: PreTrainedModel, info: dict[str, Any]) -> None:
    """Check what transformers loaded and did not load, by its own lists of harmless names.

    Raises:
        ConfigError: A weight is missing, or has another shape than the model needs.
    """
    if missing := info["missing_keys"]:
        raise ConfigError(
            tr(
                "{base} lacks {weights} that {type} needs: {listed}. Download the model again, "
                "or take one that is complete",
                base=base,
                weights=tr_n("{n} weight", "{n} weights", len(missing)),
                type=type(model).__name__,
                listed=listed(missing),
            )
        )
    different = {name: (tuple(had), tuple(needs)) for name, had, needs in info["mismatched_keys"]}
    for path, layer in linear_layers(model).items():
        # transformers does not compare the shape of a weight that it quantizes.
        had = tuple((quant_state(layer) or layer.weight).shape)
        needs = (getattr(layer, "out_features", had[0]), getattr(layer, "in_features", had[1]))
        if had != needs:
            different.setdefault(f"{path}.weight", (had, needs))
    if different:
        had, needs = different[min(different)]
        raise ConfigError(
            tr(
                "{base} has {weights} of other shapes than its config.json says: {listed}; the "
                "first is {had}, and the model needs {needs}. Take config.json and the weights "
                "from one model",
                base=base,
                weights=tr_n("{n} weight", "{n} weights", len(different)),
                listed=listed(different),
                had=had,
                needs=needs,
            )
        )
    if unexpected := info["unexpected_keys"]:
        print_rank0(
            tr(
                "model  {base} has {weights} that {type} does not use: {listed}",
                base=base,
                weights=tr_n("{n} weight", "{n} weights", len(unexpected)),
                type=type(model).__name__,
                listed=listed(unexpected),
            ),
            note=True,
        )
