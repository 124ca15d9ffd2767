"""The records of a search are plain JSON, and a bad one is refused."""

import json
from dataclasses import replace
from typing import Any

import pytest

from lit.searching.records import Point, RecordError, Search, Trial

TRIAL = Trial(
    number=0,
    settings={"model.lr": 2e-4, "model.lora.r": 8, "model.lora.target_modules": ["q_proj", "all"]},
    seed=1,
    state="finished",
    reason="",
    curve=(Point(10, 0.5, 2.5), Point(20, 1.0, 2.25)),
    steps=20,
    parameters=1000,
    seconds=12.5,
    full_schedule=True,
    choose=(10.0, 20.5),
    report=None,
)
SEARCH = Search(
    trials=(TRIAL, replace(TRIAL, number=1, state="failed", reason="no memory", choose=None)),
    own=0,
    choose_labels=(5, 9),
    report_labels=(7,),
    base_choose=(12.0, 22.0),
    base_report=(9.0,),
    rows=(40, 2, 1),
    budget_s=None,
    used_s=30.0,
    notes=("Two trials.",),
)


def test_a_search_is_the_same_after_a_way_through_json() -> None:
    text = json.dumps(SEARCH.to_json(), allow_nan=False)
    assert Search.from_json(json.loads(text)) == SEARCH
    assert Trial.from_json(json.loads(json.dumps(TRIAL.to_json()))) == TRIAL


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("number", 1.5),
        ("number", True),
        ("seed", None),
        ("state", "running"),
        ("reason", None),
        ("curve", [{"step": 1, "epoch": 0.1}]),
        ("curve", [{"step": 1, "epoch": 0.1, "loss": float("nan")}]),
        ("settings", ["model.lr"]),
        ("settings", {"model.lr": float("inf")}),
        ("seconds", "12"),
        ("full_schedule", 1),
        ("choose", [1.0, float("nan")]),
        ("choose", "12"),
        ("report", [True]),
    ],
)
def test_a_trial_with_a_bad_field_is_refused_by_the_name_of_the_field(
    field: str, value: Any
) -> None:
    with pytest.raises(RecordError, match=f"{field}|loss|model.lr"):
        Trial.from_json(TRIAL.to_json() | {field: value})


def test_a_trial_that_lacks_a_field_or_has_another_is_refused() -> None:
    record = TRIAL.to_json()
    with pytest.raises(RecordError, match="colour"):
        Trial.from_json(record | {"colour": "red"})
    del record["seed"]
    with pytest.raises(RecordError, match="seed"):
        Trial.from_json(record)
    with pytest.raises(RecordError, match="trial"):
        Trial.from_json(None)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_never_written(number: float) -> None:
    with pytest.raises(RecordError, match="seconds"):
        replace(TRIAL, seconds=number).to_json()
    with pytest.raises(RecordError, match=r"model\.lr"):
        replace(TRIAL, settings={"model.lr": number}).to_json()


def test_a_setting_that_json_does_not_hold_is_never_written() -> None:
    with pytest.raises(RecordError, match="modules"):
        replace(TRIAL, settings={"modules": {"q_proj"}}).to_json()


def test_a_search_refuses_rows_that_are_not_its_own_and_a_number_given_twice() -> None:
    with pytest.raises(RecordError, match="trial 5 has 3 losses"):
        replace(SEARCH, trials=(replace(TRIAL, number=5, choose=(1.0, 2.0, 3.0)),))
    with pytest.raises(RecordError, match="the base has 2 losses"):
        replace(SEARCH, base_report=(1.0, 2.0))
    with pytest.raises(RecordError, match="same number"):
        replace(SEARCH, trials=(TRIAL, TRIAL))


def test_trials_that_differ_in_the_seed_alone_have_the_same_key() -> None:
    other = dict(reversed(TRIAL.settings.items()))
    assert replace(TRIAL, seed=2, number=3, settings=other).key == TRIAL.key
    assert replace(TRIAL, settings=other | {"model.lora.r": 4}).key != TRIAL.key
