"""Tables that the library datasets reads: Parquet files, and data sets of the hub."""

from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from transformers import PreTrainedTokenizerFast

from data.formats import to_messages
from data.readers.hub import read_hub
from data.readers.source import Source, read
from data.store import build
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
    found = [row for row in read(path) if isinstance(row, Row)]
    assert [row.fields for row in found] == ROWS
    assert [row.line for row in found] == [1, 2]
    assert all(to_messages(row) for row in found)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What the hub is asked for; it always has the same rows."""
    asked = []

    def load_dataset(*args: Any, **options: Any) -> datasets.Dataset:
        asked.append((*args, options))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hub:someone/rows", ("someone/rows", None, {"split": "train"})),
        ("hub:someone/rows:test", ("someone/rows", None, {"split": "test"})),
        ("hub:someone/rows:test:ru", ("someone/rows", "ru", {"split": "test"})),
    ],
)
def test_a_data_set_is_asked_for_by_name_split_and_config_and_nothing_else(
    name: str, expected: tuple, asked: list[tuple]
) -> None:
    rows = list(read_hub(name))
    assert asked == [expected]
    assert rows == [Row(fields, name, number) for number, fields in enumerate(ROWS, 1)]


def test_a_data_set_of_the_hub_becomes_a_store(
    asked: list[tuple], tokenizer: PreTrainedTokenizerFast
) -> None:
    store = build(Source("hub:someone/rows"), tokenizer, max_length=96)
    assert [store.location(row) for row in range(2)] == ["hub:someone/rows:1", "hub:someone/rows:2"]
    assert store.messages(1)[0].content == "Why?"


@pytest.mark.parametrize("name", ["hub:no/such", "hub:no-such", "hub:"])
def test_without_a_network_one_line_says_so(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(DataError, match=f"data.path is {name}, which cannot be had") as error:
        build(name, tokenizer, max_length=96)
    assert len(str(error.value).splitlines()) == 1
