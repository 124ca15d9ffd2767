"""Which settings and rows a resumed run may change."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lit.resume.settings_diff import check_settings, rows_digest, same_length, to_json
from lora.config import ConfigError

COLUMNS = ("content_hashes", "lengths", "label_counts")


def data(column: str = "", **rows: list[int]) -> Any:
    """Return a data module of eight rows; one number of a column can differ."""
    columns = {name: np.arange(8) + 10 * i for i, name in enumerate(COLUMNS)}
    if column:
        columns[column][3] += 1
    store = SimpleNamespace(**columns)
    split = {"train_rows": [0, 2, 3], "val_rows": [1, 3]} | rows
    return SimpleNamespace(
        store=store, val=store, **{name: np.array(value) for name, value in split.items()}
    )


@pytest.mark.parametrize("column", COLUMNS)
def test_a_digest_depends_on_content_length_and_labels_of_every_row(column: str) -> None:
    before, after = rows_digest(data()), rows_digest(data(column))
    assert before == rows_digest(data())
    assert before.keys() == {"data.path (rows)", "data.val_path (rows)"}
    assert all(before[name] != after[name] for name in before)


@pytest.mark.parametrize("rows", [{"train_rows": [0, 3]}, {"train_rows": [0, 3, 2]}])
def test_a_digest_depends_on_which_rows_train_and_on_their_order(rows: dict) -> None:
    before, after = rows_digest(data()), rows_digest(data(**rows))
    assert before["data.path (rows)"] != after["data.path (rows)"]
    assert before["data.val_path (rows)"] == after["data.val_path (rows)"]


@pytest.mark.parametrize(
    ("name", "used"),
    [
        ("model.lr", "the checkpoint's"),
        ("model.weight_decay", "the checkpoint's"),
        ("trainer.max_epochs", "the new"),
        ("model.scheduler", "the new"),
    ],
)
def test_a_setting_that_may_change_is_listed_with_the_value_that_is_used(
    name: str, used: str
) -> None:
    lines = check_settings(to_json({name: 1}), to_json({name: 2}))
    assert lines == [f"{name} is 2, was 1: using {used} value"]


@pytest.mark.parametrize(
    "name",
    [
        *("model.base", "model.quantize", "model.lora.r", "model.optimizer", "data.batch_size"),
        *("data.path (rows)", "seed_everything", "trainer.precision"),
        "trainer.limit_train_batches",
    ],
)
def test_a_setting_that_may_not_change_is_refused_with_both_values(name: str) -> None:
    with pytest.raises(ConfigError, match=r"is 2, was 1\. Set the old values"):
        check_settings(to_json({name: 1}), to_json({name: 2}))


@pytest.mark.parametrize("name", ["output_dir", "data.num_workers", "data.path", "data.seed"])
def test_a_setting_that_changes_no_number_is_ignored(name: str) -> None:
    assert check_settings(to_json({name: 1}), to_json({name: 2})) == []


@pytest.mark.parametrize(("old", "new"), [("16", "16.0"), ("[1, 2]", "[1,2]"), ("1e-4", "0.0001")])
def test_two_spellings_of_one_value_are_equal(old: str, new: str) -> None:
    assert check_settings({"model.lora.lora_alpha": old}, {"model.lora.lora_alpha": new}) == []
    with pytest.raises(ConfigError, match="lora_alpha is 17, was 16"):
        check_settings({"model.lora.lora_alpha": "16"}, {"model.lora.lora_alpha": "17"})


def test_a_setting_that_only_one_side_has_is_ignored() -> None:
    assert check_settings(to_json({"model.base": 1}), to_json({"model.lora.r": 2})) == []


@pytest.mark.parametrize(
    ("name", "equal"),
    [("trainer.max_epochs", False), ("early_stopping.patience", False), ("model.lr", True)],
)
def test_only_some_settings_change_the_length_of_a_run(name: str, equal: bool) -> None:
    assert same_length(to_json({name: 1}), to_json({name: 2})) == equal


def test_a_checkpoint_from_before_rows_shared_beginnings_is_of_a_run_without() -> None:
    old = to_json({"data.batch_size": 4})
    assert check_settings(old, old | to_json({"data.share_prefixes": False})) == []
    with pytest.raises(ConfigError, match=r"data\.share_prefixes is true, was false"):
        check_settings(old, old | to_json({"data.share_prefixes": True}))
    assert check_settings({}, to_json({"data.share_prefixes": True})) == []
