"""The base model: find it, load its weights and its tokenizer."""

import sys
from pathlib import Path

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from data.text import clean
from lit.messages import tr
from lit.model.loading import load_weights, summary
from lora.config import ConfigError
from lora.messages import tr as tr_lora
from lora.storage.files import check_regular_files
from lora.storage.mismatch import GROWN
from lora.storage.peft_format import printable

MAX_NAME = 1024
"""Letters of a model's name or folder."""


def quiet() -> None:
    """Let transformers print errors only, and progress bars to a terminal only."""
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()


def locate(base: str, revision: str | None = None) -> dict[str, object]:
    """Check that a base model exists, before anything is loaded.

    Args:
        base: A hub name or a local folder.
        revision: A branch, tag or commit of the hub.

    Returns:
        Arguments of transformers' ``from_pretrained`` that say where it is.

    Raises:
        ConfigError: It does not exist, or is not a base model.
    """
    if len(base) > MAX_NAME or clean(base) != base:
        raise ConfigError(
            tr(
                "{base} is not a model's name: it is longer than {max_name} letters, or has "
                "control characters",
                base=printable(base, 80),
                max_name=MAX_NAME,
            )
        )
    folder = Path(base)
    if folder.is_dir():
        if (folder / "adapter_config.json").is_file():
            raise ConfigError(
                tr(
                    "{base} is an adapter, not a base model: give the model that it was trained on",
                    base=base,
                )
            )
        if not (folder / "config.json").is_file():
            raise ConfigError(tr("{base} has no config.json: it is not a model folder", base=base))
        check_regular_files(folder)
        return {"local_files_only": True}
    if folder.is_absolute() or base.startswith(".") or base.count("/") != 1:
        raise ConfigError(
            tr(
                "there is no folder {base}. Give a model's folder, or its hub name, like "
                "Qwen/Qwen2.5-0.5B-Instruct",
                base=base,
            )
        )
    cached = isinstance(try_to_load_from_cache(base, "config.json", revision=revision), str)
    # One request; transformers would try six times in 45 seconds and then print a page.
    try:
        HfApi().model_info(base, revision=revision, timeout=10)
    except GatedRepoError:
        raise ConfigError(
            tr(
                "{base} is gated: accept its terms on the hub, then log in with `hf auth login`",
                base=base,
            )
        ) from None
    except (RepositoryNotFoundError, HFValidationError):
        raise ConfigError(
            tr("the hub has no model {base}, and there is no such folder", base=base)
        ) from None
    except RevisionNotFoundError:
        raise ConfigError(
            tr("{base} has no revision {revision}", base=base, revision=revision)
        ) from None
    except HfHubHTTPError as error:
        if not cached:
            raise ConfigError(
                tr("the hub refused {base}: {error}", base=base, error=error)
            ) from None
    except Exception:  # the errors of the transport have no common public class
        if not cached:
            raise ConfigError(
                tr(
                    "{base} is not a folder here, and the hub cannot be reached. Download the "
                    "model on a machine with a network and give its folder as model.base, or "
                    "run `python -m lit.embedded`, which makes models/SmolLM2-135M-Instruct "
                    "without a hub",
                    base=base,
                )
            ) from None
        return {"revision": revision, "local_files_only": True}
    return {"revision": revision}


def load_tokenizer(base: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a base model.

    Raises:
        ConfigError: The model does not exist, or its tokenizer is broken.
    """
    return read_tokenizer(base, locate(base, revision))


def read_tokenizer(source: str, where: dict[str, object]) -> PreTrainedTokenizerBase:
    """Load a tokenizer; its chat template is checked where it is first used.

    Args:
        source: A hub name or a folder.
        where: Arguments of ``from_pretrained`` that say where it is.

    Raises:
        ConfigError: It is broken.
    """
    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False, **where)
    except Exception as error:  # the libraries raise Exception itself, KeyError, TypeError, …
        raise ConfigError(
            tr(
                "the tokenizer of {source} does not load: {summary}",
                source=source,
                summary=summary(error),
            )
        ) from None


def load_base(
    base: str,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    quantize: str | None = None,
    device: torch.device | str = "cpu",
) -> PreTrainedModel:
    """Load a base model, in eval mode.

    Args:
        base: A hub name or a local folder.
        revision: A branch, tag or commit of the hub.
        dtype: Dtype of the weights; they never train, so the dtype of computing suffices.
        quantize: One of ``lora.base.QUANTIZATIONS``: linear layers in 4 or 8 bits. A model that is
            stored so loads as it is, and needs no value.
        device: The device to load onto.

    Raises:
        ConfigError: The model does not exist, needs code of its own, lacks weights, or cannot be
            quantized so.
    """
    return load_weights(base, locate(base, revision), dtype, quantize, torch.device(device))


def check_vocabulary(
    adapter: str | Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Check that an adapter's tokenizer has no token beyond its base's embedding.

    Raises:
        ConfigError: It has.
    """
    # Many bases have more rows than their tokenizer has tokens; fewer rows would fail in the middle
    # of an answer.
    rows = len(model.get_input_embeddings().weight)  # type: ignore[arg-type]
    if (last := max(tokenizer.get_vocab().values(), default=0)) >= rows:
        raise ConfigError(
            tr(
                "the vocabulary grew: the tokenizer in {adapter} has tokens up to number "
                "{last}, and the embedding of this base has {rows} rows. {advice}",
                adapter=adapter,
                last=last,
                rows=rows,
                advice=tr_lora(GROWN).format(last + 1),
            )
        )
