"""Read Parquet files and data sets of the hub with ``datasets``; their own code is never run."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow

from data.messages import tr
from data.types import BadRow, DataError, Row

if TYPE_CHECKING:
    import datasets

PREFIX = "hub:"


def read_parquet(path: Path) -> Iterator[Row | BadRow]:
    """Yield the records of a Parquet file, numbered from 1; holds one row group in memory.

    Raises:
        DataError: The file is not Parquet.
    """
    import datasets

    try:
        for number, fields in enumerate(
            datasets.Dataset.from_parquet(str(path), streaming=True), 1
        ):
            yield Row(_without_null_fields(fields), str(path), number)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            tr("{path}: not Parquet: {reason}", path=path, reason=_first_line(error))
        ) from None


def read_saved(path: Path) -> Iterator[Row | BadRow]:
    """Yield the records of a folder that ``save_to_disk`` wrote, numbered from 1.

    Raises:
        DataError: The folder is damaged.
    """
    import datasets

    try:
        table = datasets.load_from_disk(str(path))
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            tr("{path}: not a saved data set: {reason}", path=path, reason=_first_line(error))
        ) from None
    for number, fields in enumerate(table, 1):
        yield Row(_without_null_fields(fields), str(path), number)


def read_hub(name: str) -> Iterator[Row | BadRow]:
    """Yield the records of ``hub:OWNER/NAME``, optionally with ``:SPLIT`` or ``:SPLIT:CONFIG``.

    Raises:
        DataError: There is no such data set, or the hub cannot be reached.
    """
    for number, fields in enumerate(load_hub(name), 1):
        yield Row(_without_null_fields(fields), name, number)


def load_hub(name: str) -> "datasets.Dataset":
    """Return a data set of the hub; it is downloaded once.

    Raises:
        DataError: There is no such data set, or the hub cannot be reached.
    """
    import datasets

    repository, _, rest = name.removeprefix(PREFIX).partition(":")
    split, _, config = rest.partition(":")
    try:
        if not repository:
            raise ValueError(tr("the name is empty"))
        return datasets.load_dataset(repository, config or None, split=split or "train")
    except (datasets.exceptions.DatasetsError, OSError, ValueError, RuntimeError) as error:
        raise DataError(
            tr(
                "{name} cannot be loaded: {reason}. Write it as "
                "hub:OWNER/NAME:SPLIT:CONFIG; for data on this machine, give the file or "
                "folder",
                name=name,
                reason=_first_line(error),
            )
        ) from None


def _without_null_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Remove nulls inside nested objects: a table writes one for each field an object lacks."""
    return {name: _drop_nulls(value) for name, value in fields.items()}


def _drop_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _drop_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_drop_nulls(inner) for inner in value]
    return value


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
