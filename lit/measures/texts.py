"""Answers as written and conduct: measures of texts that both models wrote."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from lit.measures.conduct import (
    is_empty,
    length_difference,
    other_script,
    repetition,
)
from lit.measures.measured import Group, Measured, measure
from lit.measures.own import OwnMetric
from lit.measures.written import chrf, exact_match, is_json, is_short, token_f1
from lit.messages import tr_mark


class Written(NamedTuple):
    """The answers of both models to one question."""

    question: str
    references: tuple[str, ...]
    """Every accepted answer, the row's own first; none if there is no reference."""
    base: str
    tuned: str
    base_stopped: bool
    tuned_stopped: bool


class TextMeasure(NamedTuple):
    """A value of an answer and its references."""

    group: Group
    name: str
    better: Literal["lower", "higher"]
    value: Callable[[str, Sequence[str]], float]
    applies: Callable[[Sequence[Written]], list[Written]]
    """The answers that it measures."""
    binary: bool = False


def _all(answers: Sequence[Written]) -> list[Written]:
    return [*answers]


def _with_reference(answers: Sequence[Written]) -> list[Written]:
    return [answer for answer in answers if answer.references]


def _short(answers: Sequence[Written]) -> list[Written]:
    return [answer for answer in _with_reference(answers) if is_short(answer.references)]


def _json(answers: Sequence[Written]) -> list[Written]:
    """Return all answers if every reference is JSON; JSON is no aim otherwise."""
    known = _with_reference(answers)
    return known if all(is_json(text) for answer in known for text in answer.references) else []


MEASURES = (
    TextMeasure(Group.WRITTEN, tr_mark("chrF to the reference"), "higher", chrf, _with_reference),
    TextMeasure(Group.WRITTEN, tr_mark("words shared (F1)"), "higher", token_f1, _with_reference),
    TextMeasure(
        Group.WRITTEN, tr_mark("equal to a short reference"), "higher", exact_match, _short, True
    ),
    TextMeasure(
        Group.WRITTEN, tr_mark("valid JSON"), "higher", lambda text, _: is_json(text), _json, True
    ),
    TextMeasure(
        Group.CONDUCT, tr_mark("4-grams repeated"), "lower", lambda text, _: repetition(text), _all
    ),
    TextMeasure(
        Group.CONDUCT,
        tr_mark("length differs from the reference's"),
        "lower",
        lambda text, references: min(length_difference(text, x) for x in references),
        _with_reference,
    ),
    TextMeasure(
        Group.CONDUCT,
        tr_mark("in another script"),
        "lower",
        lambda text, references: other_script(text, references[0]),
        _with_reference,
        True,
    ),
    TextMeasure(
        Group.CONDUCT, tr_mark("empty"), "lower", lambda text, _: is_empty(text), _all, True
    ),
)
"""Measures of the text alone; a new one is a line."""


def measure_texts(answers: Sequence[Written], metrics: Sequence[OwnMetric] = ()) -> list[Measured]:
    """Measure the answers of both models; measures that apply to no answer are left out.

    Args:
        answers: The answers.
        metrics: A person's own measures, of answers that have a reference.

    Raises:
        ConfigError: A person's own measure fails.
    """
    found = []
    for kind in MEASURES:
        if rows := kind.applies(answers):
            base, tuned = _values(rows, kind.value)
            group, name, better = kind.group, kind.name, kind.better
            found.append(measure(group, name, base, tuned, better, binary=kind.binary, share=True))
    if answers:
        base, tuned = np.array([(row.base_stopped, row.tuned_stopped) for row in answers]).T
        found.append(
            measure(Group.CONDUCT, tr_mark("ends by itself"), base, tuned, "higher", binary=True)
        )
    if rows := _with_reference(answers):
        for metric in metrics:
            base, tuned = (
                np.array([metric.score(row.question, row.references[0], text(row)) for row in rows])
                for text in TEXTS
            )
            found.append(measure(Group.OWN, metric.name, base, tuned, "higher"))
    return found


TEXTS: tuple[Callable[[Written], str], ...] = (lambda row: row.base, lambda row: row.tuned)
"""The base's text and the tuned model's."""


def _values(rows: Sequence[Written], value: Callable[[str, Sequence[str]], float]) -> np.ndarray:
    """Return a value of each text of the base and of the tuned model, (2, rows)."""
    return np.array([[value(text(row), row.references) for row in rows] for text in TEXTS])
