"""Answers as written, conduct, and a person's own measure."""

from pathlib import Path

import pytest

from lit.measures.conduct import is_empty, length_difference, other_script, repetition
from lit.measures.measured import Group
from lit.measures.own import load_metric
from lit.measures.texts import Written, measure_texts
from lit.measures.written import chrf, exact_match, is_json, normalize, token_f1
from lora.config import ConfigError

EQUAL = [
    ("Yes.", "yes"),
    ("  the   Nozzle! ", "The nozzle"),
    ("«Да»", "да"),
    ("3.0 mm", "3 mm"),
    ("0,5", "0.50"),
    ("1,000", "1000"),
    ("1\u00a0000 руб.", "1000 руб"),
    ("\u22125 °C", "-5 °C"),
    ("Ёлка", "ёлка"),
    ("Ещё", "еще"),
    ("0,025 мм", "0.025 мм"),
    ("0,025", "0.025"),
    ("слой 0,2мм", "Слой: 0.20 мм."),
    ("12V", "12 V"),
    ("2,850 мм", "2,85 мм"),
    ("10 000 рублей", "10000 рублей"),
    ("1,234,567", "1234567"),
    ("70-85 °C", "70–85°C"),
    ("\uff11\uff12", "12"),
]
DIFFERENT = [
    ("5", "-5"),
    ("C", "C#"),
    ("C", "C++"),
    ("50", "50 %"),
    ("0.5", "5"),
    ("1.5 V", "15 V"),
    ("0,025 мм", "25 мм"),
    ("0,5 мм", "5 мм"),
    ("2,850 мм", "2850 мм"),
    ("стол 60, сопло 200", "стол 60 200"),
    ("yes", "no"),
    ("x < 3", "x > 3"),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_answers_that_say_the_same_are_equal(one: str, other: str) -> None:
    assert normalize(one) == normalize(other)
    assert exact_match(one, ["something", other]) == 1


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_answers_that_say_something_else_are_not_equal(one: str, other: str) -> None:
    assert exact_match(one, [other]) == 0


def test_the_nearest_of_several_references_counts() -> None:
    assert token_f1("the bed is cold", ["a cold bed", "the bed is cold"]) == 1
    assert token_f1("cold bed", ["the cold bed"]) == pytest.approx(0.8)
    assert token_f1("warm", ["cold"]) == 0
    assert chrf("cold bed", ["warm", "cold bed"]) == pytest.approx(1)


def test_conduct_is_told_from_the_text() -> None:
    assert repetition("a b c d e f") == 0
    assert repetition("go on and on " * 10) > 0.8
    assert repetition("short") == 0
    assert length_difference("abcd", "ab") == length_difference("ab", "abcd") == 0.5
    assert length_difference("", "ab") == 1
    assert other_script("Hello there", "Привет") == 1
    assert other_script("Печать ABS", "Привет") == other_script("42", "Привет") == 0
    assert is_empty("\u200b\n") == 1
    assert is_json('{"a": 1}') == 1
    assert is_json("3") == is_json("{a}") == 0


def written(base: str, tuned: str, *references: str) -> Written:
    return Written("What?", references, base, tuned, True, False)


def names(answers: list[Written]) -> set[str]:
    return {x.name for x in measure_texts(answers)}


def test_a_measure_is_of_the_answers_that_it_applies_to() -> None:
    long = "a reference of far more words than an exact match has use for"
    assert "equal to a short reference" not in names([written("x", "y", long)])
    assert "equal to a short reference" in names([written("x", "y", long), written("x", "y", "x")])
    assert "valid JSON" in names([written("x", "y", "[1]")])
    assert "valid JSON" not in names([written("x", "y", "[1]"), written("x", "y", "x")])
    assert names([written("x", "y")]) == {"4-grams repeated", "empty", "ends by itself"}
    assert not measure_texts([])


def test_both_models_are_measured_and_better_has_its_direction() -> None:
    found = {x.name: x for x in measure_texts([written("no", "yes", "yes")] * 12)}
    equal, stops = found["equal to a short reference"], found["ends by itself"]
    assert (equal.base, equal.tuned, equal.rows, str(equal.outcome)) == (0, 1, 12, "better")
    assert (stops.base, stops.tuned, str(stops.outcome)) == (1, 0, "worse")
    assert found["empty"].low is not None


def test_a_persons_own_function_is_a_measure_like_others(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "def length(question, reference, answer):\n    return len(answer) - len(reference)\n"
        "def broken(question, reference, answer):\n    return 1 / 0\n"
        "def text(question, reference, answer):\n    return 'good'\n",
        "utf-8",
    )
    answers = [written("no", "yes", "a"), written("x", "y")]
    (own,) = (
        x for x in measure_texts(answers, [load_metric(f"{path}:length")]) if x.group == Group.OWN
    )
    assert (own.name, own.base, own.tuned, own.rows) == ("mine.py:length", 1, 2, 1)
    for function, reason in (("broken", "raised ZeroDivisionError"), ("text", "returned 'good'")):
        with pytest.raises(ConfigError, match=reason):
            measure_texts(answers, [load_metric(f"{path}:{function}")])
    (tmp_path / "bad.py").write_text("import nothing_of_this_name\n", "utf-8")
    for name, reason in (
        (f"{path}:absent", "it has length, broken, text"),
        (f"{path}", "FILE.py:function"),
        ("nowhere.py:f", "does not exist"),
        (f"{tmp_path / 'bad.py'}:f", "ModuleNotFoundError"),
    ):
        with pytest.raises(ConfigError, match=reason):
            load_metric(name)
