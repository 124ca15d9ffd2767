"""A model as a command speaks with it: a base with an adapter on it, or alone."""

from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from data.template import choose_template, stop_token
from lit.model.base import load_base, load_tokenizer, locate
from lora.config import ConfigError
from lora.storage.adapter import load_adapter, read_config


def load(
    adapter: str | Path | None,
    base: str | None = None,
    template: str = "auto",
    quantize: str | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load what a command is to speak with: an adapter on its base, or a base alone.

    Args:
        adapter: An adapter's folder, or None.
        base: The base model; needed without an adapter.
        template: As ``data.template.choose`` takes it, or ``none``: the tokenizer then has none.
        quantize: As in ``lit.model.base.load_base``.

    Raises:
        ConfigError, DataError: Something is not there, or does not fit.
    """
    if adapter is not None:
        model, tokenizer = load_tuned(adapter, base, quantize=quantize)
    elif base:
        model, tokenizer = load_base(base, quantize=quantize), load_tokenizer(base)
    else:
        raise ConfigError("give --adapter D, or --base NAME")
    if template == "none":
        tokenizer.chat_template = None
    else:
        choose_template(tokenizer, template)
        # Raises if the template writes a question otherwise than training would.
        stop_token(tokenizer)
    return model, tokenizer


def load_tuned(
    adapter: str | Path,
    base: str | None = None,
    dtype: torch.dtype = torch.float32,
    quantize: str | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a base model with an adapter on it, and the tokenizer it was trained with.

    Args:
        adapter: An adapter's folder.
        base: The base model, if it is not where the adapter's config says.
        dtype: Of the base's weights.
        quantize: As in ``lit.model.base.load_base``.

    Raises:
        ConfigError: The adapter, or its base, is not there, or they do not fit.
    """
    base, revision = base_of(adapter, base)
    model = load_base(base, revision, dtype, quantize)
    load_adapter(model, adapter)
    # The folder's tokenizer carries the template of training; one made elsewhere may lack it.
    own = Path(adapter) / "tokenizer_config.json"
    source = str(adapter) if own.is_file() else base
    tokenizer = AutoTokenizer.from_pretrained(
        source, trust_remote_code=False, local_files_only=own.is_file()
    )
    return model.eval(), tokenizer


def stored_dtype(adapter: str | Path, base: str | None = None) -> torch.dtype:
    """The dtype in which an adapter's base model, found as by ``base_of``, is stored."""
    dtype = base_config(adapter, base).dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def base_config(adapter: str | Path, base: str | None = None) -> PretrainedConfig:
    """The config of an adapter's base model, found as by ``base_of``, without its weights."""
    base, revision = base_of(adapter, base)
    return AutoConfig.from_pretrained(base, trust_remote_code=False, **locate(base, revision))


def base_of(adapter: str | Path, base: str | None) -> tuple[str, str | None]:
    """The name or folder of an adapter's base model, and its revision.

    Args:
        adapter: An adapter's folder.
        base: The base model, if it is not where the adapter's config says.

    Raises:
        ConfigError: The adapter names none, or one that is not followed.
    """
    named = read_config(adapter)
    found = base or named.get("base_model_name_or_path")
    if not isinstance(found, str) or not found:
        raise ConfigError(f"{adapter} does not name its base model: give it by --base")
    if base is None and ".." in Path(found).parts:
        raise ConfigError(f"{adapter} names its base as {found!r}, which climbs: give it by --base")
    # A revision belongs to the base that the adapter names, not to another.
    revision = None if base else named.get("revision")
    if revision is not None and not isinstance(revision, str):
        raise ConfigError(f"{adapter} names the revision {revision!r}, which is no text")
    return found, revision
