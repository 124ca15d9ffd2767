"""A base model and its adapters, from one copy of the weights, by the names that clients use."""

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lit.answering.batching import batch_changes
from lit.fast_layers.table import use_fast_answers
from lit.messages import tr
from lit.model.base import load_base, load_tokenizer
from lit.model.tuned import adapter_tokenizer, base_of, set_template
from lit.serving.engine.errors import RequestError
from lit.serving.engine.served_model import ServedModel
from lora.adapter_set import AdapterSet
from lora.config import ConfigError
from lora.storage.adapter import load_adapter
from lora.storage.files import check_regular_files

BASE, TUNED = "base", "tuned"
"""The name of the base, and of an adapter without a name."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class ServedModels:
    """All models of a server by name, base first.

    Args:
        model: The base, in eval mode.
        adapters: Its adapters.
        tokenizers: One for the base, and one for each adapter, with templates.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        adapters: AdapterSet,
        tokenizers: Mapping[str, PreTrainedTokenizerBase],
    ) -> None:
        self.model, self.adapters = model, adapters
        self._by_name = {
            name: ServedModel(name, model, tokenizer) for name, tokenizer in tokenizers.items()
        }

    @property
    def names(self) -> list[str]:
        """Return the names, base first."""
        return list(self._by_name)

    def answers_change_in_batches(self) -> str:
        """Return why a batch could change answers, or nothing: see ``generate_rows``."""
        dtypes = {parameter.dtype for parameter in self.model.parameters()}
        if dtypes == {torch.float32}:
            return batch_changes(self.model, self._by_name[BASE].pad) or ""
        return tr(
            "rounding errors of half precision and of quantized layers are so large that an "
            "answer in a batch could differ from the same one alone"
        )

    def get(self, name: str) -> ServedModel:
        """Return a model.

        Raises:
            RequestError: 404, there is none of this name.
        """
        if name not in self._by_name:
            raise RequestError(
                404,
                f"there is no model {name[:80]!r}; this server has {', '.join(self.names)}",
                "model",
                "model_not_found",
            )
        return self._by_name[name]

    def use(self, name: str) -> PreTrainedModel:
        """Return the model with one adapter on it, or none for the base."""
        self.adapters.use(None if name == BASE else name)
        return self.model


def named_adapters(given: Sequence[str]) -> dict[str, str]:
    """Return the folder of each adapter by its name; one alone may have none.

    Args:
        given: ``D`` or ``name=D``.

    Raises:
        ConfigError: A name is missing, taken or not one.
    """
    named: dict[str, str] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not equals or Path(text).is_dir():
            if len(given) > 1:
                raise ConfigError(
                    tr("several adapters need names: type --adapter NAME={said}", said=text)
                )
            name, folder = TUNED, text
        if not NAME.fullmatch(name):
            raise ConfigError(
                tr(
                    "--adapter {said}: a name has letters, digits, dots, dashes and underscores",
                    said=text[:80],
                )
            )
        values = {"given": text, "name": name}
        if name == BASE:
            raise ConfigError(
                tr("--adapter {given}: the name {name} is the base's; choose another one", **values)
            )
        if name in named:
            raise ConfigError(
                tr(
                    "--adapter {given}: the name {name} is given twice; choose another one",
                    **values,
                )
            )
        named[name] = folder
    return named


def base_of_all(adapters: Mapping[str, str], base: str | None) -> tuple[str, str | None]:
    """Return the base and the revision that adapters share.

    Raises:
        ConfigError: They have different ones, or none is known.
    """
    found = {name: base_of(folder, base) for name, folder in adapters.items()}
    if not found:
        if base is None:
            raise ConfigError(tr("give --adapter D, or --base NAME"))
        return base, None
    (first, source), *others = found.items()
    for name, other in others:
        if _resolved(other) != _resolved(source):
            raise ConfigError(
                tr(
                    "the adapter {first} was trained on {source} and {name} on {other}: one "
                    "server has one base. Start two servers, or give --base if both are one "
                    "model",
                    first=first,
                    source=source[0],
                    name=name,
                    other=other[0],
                )
            )
    return source


def load_models(
    adapters: Mapping[str, str],
    base: str,
    revision: str | None,
    dtype: torch.dtype,
    quantize: str | None,
    device: torch.device,
) -> ServedModels:
    """Load a base once, and every adapter beside it.

    Args:
        adapters: The folder of each adapter by its name.
        base: The base of all of them.
        revision: Its revision.
        dtype: Dtype of the base's weights.
        quantize: As in ``lit.model.base.load_base``.
        device: The device to load onto.

    Raises:
        ConfigError, DataError: Something does not exist, or does not match.
    """
    for folder in adapters.values():
        check_regular_files(Path(folder))
    model = load_base(base, revision, dtype, quantize, device).eval()
    loaded = AdapterSet(model)
    tokenizers: dict[str, PreTrainedTokenizerBase] = {}
    for name, folder in adapters.items():
        load_adapter(model, folder)
        loaded.keep(name)
        tokenizers[name] = adapter_tokenizer(model, folder, base, revision)
    # With each adapter on, as its layers keep layers of the base.
    for used in (None, *loaded.names):
        loaded.use(used)
        use_fast_answers(model)
    loaded.use(None)
    # As in a comparison, the base answers the prompt of the adapter beside it.
    first = next(iter(tokenizers.values()), None) or load_tokenizer(base, revision)
    tokenizers = {BASE: copy.deepcopy(first), **tokenizers}
    for tokenizer in tokenizers.values():
        set_template(tokenizer, "auto")
    model.eval()
    return ServedModels(model, loaded, tokenizers)


def _resolved(source: tuple[str, str | None]) -> tuple[str, str | None]:
    folder = Path(source[0])
    return (str(folder.resolve()) if folder.is_dir() else source[0]), source[1]
