"""The rows that train and those that validate, read together."""

from typing import Any

from transformers import PreTrainedTokenizerBase

from data.readers.source import Source
from data.report.refusal import join_refusals
from data.store import Store, build_store
from data.types import DataError


def build_stores(
    train: Source, val: Source | None, tokenizer: PreTrainedTokenizerBase, **settings: Any
) -> tuple[Store, Store | None]:
    """Build the stores of two sources; the problems of both are one error.

    Args:
        train: Rows to train on.
        val: Rows to validate on, if they are another source.
        tokenizer: A tokenizer with a template.
        **settings: As in ``build_store``.

    Raises:
        DataError: As ``build_store`` does.
    """
    stores, errors = [], []
    for source in (train, val) if val else (train,):
        try:
            stores.append(build_store(source, tokenizer, **settings))
        except DataError as error:
            errors.append(error)
    join_refusals(errors)
    return stores[0], stores[1] if val else None
