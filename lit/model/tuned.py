"""A base model with an adapter on it, or alone, and its tokenizer."""

from pathlib import Path

import torch
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from data.template import choose_template, stop_token
from data.templates.variables import Value, unread, values_in
from lit.messages import tr
from lit.model import architecture
from lit.model.base import check_vocabulary, load_base, load_tokenizer, locate, read_tokenizer
from lit.model.loading import load_config
from lit.run.console import print_rank0
from lora.config import ConfigError
from lora.storage.adapter import load_adapter, read_config
from lora.storage.files import check_regular_files
from lora.storage.metadata import read_quantization
from lora.storage.peft_format import printable

NOT_QUANTIZED = "none"
"""What a person gives to load a base dense that was quantized in training."""


def load(
    adapter: str | Path | None,
    base: str | None = None,
    template: str = "auto",
    quantize: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    template_kwargs: dict[str, Value] | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load an adapter on its base, or a base alone.

    Args:
        adapter: An adapter's folder, or None.
        base: The base model; required without an adapter.
        template: As ``data.template.choose`` takes it, or ``none``: the tokenizer then has none.
        quantize: As in ``lit.model.base.load_base``.
        dtype: Dtype of the base's weights.
        device: The device to load onto.
        template_kwargs: Values for variables of the template, instead of the adapter's own.

    Raises:
        ConfigError, DataError: Something does not exist, or does not match.
    """
    if adapter is not None:
        model, tokenizer = load_tuned(adapter, base, dtype, quantize, device)
    elif base:
        model, tokenizer = load_base(base, None, dtype, quantize, device), load_tokenizer(base)
    else:
        raise ConfigError(tr("give --adapter D, or --base NAME"))
    set_template(tokenizer, template, template_kwargs)
    return model, tokenizer


def chosen_quantization(adapter: str | Path | None, quantize: str | None) -> str | None:
    """Return how to quantize a base: as a person asks, else as when its adapter was trained.

    Args:
        adapter: An adapter's folder, or None.
        quantize: One of ``lora.base.QUANTIZATIONS``; ``none`` for a dense base; None for no wish.

    Raises:
        AdapterError: The adapter's file names an unknown kind.
    """
    if quantize is not None or adapter is None:
        return None if quantize == NOT_QUANTIZED else quantize
    if kind := read_quantization(adapter):
        print_rank0(
            tr(
                "model  the base is loaded in {kind}, as when the adapter was trained; "
                "--quantize {not_quantized} loads it dense",
                kind=kind,
                not_quantized=NOT_QUANTIZED,
            ),
            note=True,
        )
    return kind


def load_tuned(
    adapter: str | Path,
    base: str | None = None,
    dtype: torch.dtype = torch.float32,
    quantize: str | None = None,
    device: torch.device | str = "cpu",
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a base model with an adapter on it, and the tokenizer that it was trained with.

    Args:
        adapter: An adapter's folder.
        base: The base model, if the adapter's config names another place.
        dtype: Dtype of the base's weights.
        quantize: As in ``lit.model.base.load_base``.
        device: The device to load onto.

    Raises:
        ConfigError: The adapter or its base does not exist, or they do not match.
    """
    base, revision = base_of(adapter, base)
    check_regular_files(Path(adapter))
    model = load_base(base, revision, dtype, quantize, device)
    load_adapter(model, adapter)
    return model.eval(), adapter_tokenizer(model, adapter, base, revision)


def adapter_tokenizer(
    model: PreTrainedModel, adapter: str | Path, base: str, revision: str | None
) -> PreTrainedTokenizerBase:
    """Return the tokenizer that an adapter was trained with: its own, or else its base's.

    Raises:
        ConfigError: It does not exist, is broken, or has more tokens than the model.
    """
    # The folder's tokenizer carries the template of training; other tools may not save it.
    own = Path(adapter) / "tokenizer_config.json"
    if own.is_file():
        tokenizer = read_tokenizer(str(adapter), {"local_files_only": True})
        check_vocabulary(adapter, model, tokenizer)
        return tokenizer
    return load_tokenizer(base, revision)


def set_template(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    template_kwargs: dict[str, Value] | None = None,
) -> None:
    """Give a tokenizer the template that answers follow.

    Args:
        tokenizer: Changed in place.
        template, template_kwargs: As in ``load``.

    Raises:
        DataError: There is no such template, or it writes a question differently from training.
    """
    if template == "none":
        tokenizer.chat_template = None
        return
    choose_template(tokenizer, template, template_kwargs)
    if text := unread(tokenizer):
        print_rank0(tr("template_kwargs: {said}", said=text), note=True)
    stop_token(tokenizer)


def trained_values(adapter: str | Path) -> dict[str, Value]:
    """Return the values of ``template_kwargs`` that an adapter was trained with."""
    path = Path(adapter) / "chat_template.jinja"
    return values_in(path.read_text(encoding="utf-8")) if path.is_file() else {}


def stored_dtype(adapter: str | Path, base: str | None = None) -> torch.dtype:
    """Return the dtype in which the base model of an adapter is stored."""
    return architecture.stored_dtype(base_config(adapter, base))


def base_config(adapter: str | Path, base: str | None = None) -> PretrainedConfig:
    """Return the config of an adapter's base model; no weights are loaded."""
    return read_base_config(*base_of(adapter, base))


def read_base_config(base: str, revision: str | None) -> PretrainedConfig:
    """Return the config of a base model; no weights are loaded.

    Raises:
        ConfigError: The model does not exist, or its config does not load.
    """
    return load_config(base, locate(base, revision))


def base_of(adapter: str | Path, base: str | None) -> tuple[str, str | None]:
    """Return the name or folder of an adapter's base model, and its revision.

    Args:
        adapter: An adapter's folder.
        base: The base model, if the adapter's config names another place.

    Raises:
        ConfigError: The adapter names no base, or a path that is not followed.
    """
    settings = read_config(adapter)
    name = base or settings.get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise ConfigError(
            tr("{adapter} does not name its base model: give it with --base", adapter=adapter)
        )
    if base is None and ".." in Path(name).parts:
        raise ConfigError(
            tr(
                "{adapter} names its base as {name}, a path with ..: give it with --base",
                adapter=adapter,
                name=printable(repr(name), 200),
            )
        )
    # A revision belongs to the base that the adapter names, not to another.
    revision = None if base else settings.get("revision")
    if revision is not None and not isinstance(revision, str):
        raise ConfigError(
            tr(
                "{adapter} names the revision {revision}, which is not a text",
                adapter=adapter,
                revision=printable(repr(revision), 80),
            )
        )
    return name, revision
