"""Parquet files and data sets of the hub, which the library datasets reads."""

from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from transformers import PreTrainedTokenizerFast

from data.formats.rows import to_messages
from data.readers.hub import read_hub
from data.readers.source import Source, read
from data.store import build_store
from data.types import DataError, Row

ROWS = [
    {"messages": [
        {"role": "user", "content": "NA"}, {"role": "assistant", "content": "None", "train": True},
    ]},
    {"messages": [
        {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."},
    ]},
]  # fmt: skip


def test_a_turn_in_parquet_has_the_fields_it_was_written_with(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path, row_group_size=1)
    rows = [row for row in read(path) if isinstance(row, Row)]
    assert [row.fields for row in rows] == ROWS
    assert [row.line for row in rows] == [1, 2]
    assert all(to_messages(row) for row in rows)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """The calls of ``load_dataset``, which is replaced and always returns the same rows."""
    requests = []

    def load_dataset(*args: Any, **options: Any) -> datasets.Dataset:
        requests.append((*args, options))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return requests


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hub:someone/rows", ("someone/rows", None, {"split": "train"})),
        ("hub:someone/rows:test", ("someone/rows", None, {"split": "test"})),
        ("hub:someone/rows:test:ru", ("someone/rows", "ru", {"split": "test"})),
    ],
)
def test_a_data_set_is_requested_by_name_split_and_config_only(
    name: str, expected: tuple, requests: list[tuple]
) -> None:
    rows = list(read_hub(name))
    assert requests == [expected]
    assert rows == [Row(fields, name, number) for number, fields in enumerate(ROWS, 1)]


def test_a_data_set_of_the_hub_becomes_a_store(
    requests: list[tuple], tokenizer: PreTrainedTokenizerFast
) -> None:
    store = build_store(Source("hub:someone/rows"), tokenizer, max_length=96)
    assert [store.location(row) for row in range(2)] == ["hub:someone/rows:1", "hub:someone/rows:2"]
    assert store.messages(1)[0].content == "Why?"


@pytest.mark.parametrize("name", ["hub:no/such", "hub:no-such", "hub:"])
def test_a_data_set_that_cannot_be_loaded_is_one_line(
    name: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(DataError, match=f"{name} cannot be loaded") as error:
        build_store(name, tokenizer, max_length=96)
    assert len(str(error.value).splitlines()) == 1
