"""Read Parquet files and data sets of the hub, through ``datasets``; code of theirs never runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow

from data.types import BadRow, DataError, Row

PREFIX = "hub:"


def read_parquet(path: Path) -> Iterator[Row | BadRow]:
    """The records of a Parquet file, numbered from 1; no more is held than a group of them.

    Raises:
        DataError: The file is no Parquet.
    """
    try:
        for number, fields in enumerate(
            datasets.Dataset.from_parquet(str(path), streaming=True), 1
        ):
            yield Row(_whole(fields), str(path), number)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not Parquet: {_first_line(error)}") from None


def read_hub(name: str) -> Iterator[Row | BadRow]:
    """The records of ``hub:OWNER/NAME``, with ``:SPLIT`` and ``:CONFIG`` behind it if need be.

    Raises:
        DataError: There is no such data set, or the hub cannot be reached.
    """
    for number, fields in enumerate(load(name), 1):
        yield Row(_whole(fields), name, number)


def load(name: str) -> datasets.Dataset:
    """A data set of the hub, downloaded once.

    Raises:
        DataError: There is no such data set, or the hub cannot be reached.
    """
    repository, _, rest = name.removeprefix(PREFIX).partition(":")
    split, _, config = rest.partition(":")
    try:
        if not repository:
            raise ValueError("it has no name")
        return datasets.load_dataset(repository, config or None, split=split or "train")
    except (datasets.exceptions.DatasetsError, OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"data.path is {name}, which cannot be had: {_first_line(error)}. It is read as "
            "hub:OWNER/NAME:SPLIT:CONFIG; a data set that lies here is named by its file or folder"
        ) from None


def _whole(fields: dict[str, Any]) -> dict[str, Any]:
    """A record without the nulls by which a table writes what an object inside does not have."""
    return {name: _given(value) for name, value in fields.items()}


def _given(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _given(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_given(inner) for inner in value]
    return value


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
