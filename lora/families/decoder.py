"""The part of a model that reads tokens: its blocks, without the output head and without towers."""

from collections.abc import Callable
from typing import Any

from torch import nn


def text_decoder(model: nn.Module) -> nn.Module:
    """Return the module that turns token ids into hidden states.

    Models that see or hear have towers and projectors beside it. A module without the accessors of
    transformers' models is its own decoder.
    """
    part = model
    embeddings = _call(model, "get_input_embeddings")
    while (head := _call(part, "get_output_embeddings")) is not None or part is model:
        inner = _call(part, "get_decoder")
        if inner is part or not _holds(inner, embeddings):
            # Some families name no decoder, and one calls its output head so: then the decoder is
            # what holds the embeddings beside the head.
            children = (child for child in part.children() if child is not embeddings)
            inner = next((child for child in children if _holds(child, embeddings)), None)
        if inner is None or (head is None and inner is not _call(part, "get_decoder")):
            break
        part = inner
    return part


def decoder_path(model: nn.Module) -> str:
    """Return the path of the decoder inside a model; empty for the model itself."""
    decoder = text_decoder(model)
    return next(path for path, module in model.named_modules() if module is decoder)


def text_path(model: nn.Module) -> str:
    """Return the path under which a model's text part lies; empty if that is all of it.

    A model that only reads text is its own text part, with what stands around its decoder.
    """
    path = decoder_path(model)
    return "" if text_decoder(model) is getattr(model, "base_model", None) else path


def _holds(part: nn.Module | None, embeddings: nn.Module | None) -> bool:
    return part is not None and any(module is embeddings for module in part.modules())


def _call(module: nn.Module, name: str) -> Any:
    # Base models of some families have an accessor that raises.
    accessor: Callable[[], Any] | None = getattr(module, name, None)
    try:
        return accessor() if accessor else None
    except (AttributeError, NotImplementedError):
        return None
