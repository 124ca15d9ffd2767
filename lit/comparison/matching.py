"""Matching and truth of both models, within a time."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from data.types import Example
from lit.comparison.questions import Question
from lit.measures.intervals import MIN_ROWS
from lit.measures.losses import MeasureLosses
from lit.measures.matching import NEAREST, SIMILAR, WRONG, Case, Encode, Key, Matching
from lit.measures.measured import Group, Measured, measure
from lit.messages import tr_later
from lit.settings.budget import Budget

ROWS_AT_A_TIME = MIN_ROWS
GROUPS = {NEAREST: Group.MATCHING, SIMILAR: Group.MATCHING, WRONG: Group.TRUTH}


Tokens = tuple[tuple[int, ...], tuple[int, ...]]
"""The tokens of a row, and its labels."""


def tokens_of(example: Example) -> Tokens:
    """Return what two rows have in common whose losses are the same."""
    return tuple(example.ids), tuple(example.labels)


class MatchingResult(NamedTuple):
    """What was measured, and of how many rows."""

    measures: list[Measured]
    rows: int
    left_out: int
    """Rows with an answer that cannot be encoded after another question."""


def measure_matching(
    measure_losses: MeasureLosses,
    questions: Sequence[Question],
    encode: Encode,
    budget: Budget,
    on_progress: Callable[[int], None],
    known: Mapping[Tokens, np.ndarray] | None = None,
) -> MatchingResult:
    """Score the rows' answers under both models until the time is over.

    Args:
        measure_losses: As ``measuring_losses`` yields it.
        questions: The rows in the order to measure them; texts without a question are left out.
        encode: Encodes a conversation with labels on its last answer.
        budget: The time; as many rows as an interval needs are measured in any case.
        on_progress: Called with the number of rows after each step.
        known: Mean losses of rows that were measured before, (models,) each.
    """
    known = known or {}
    cases = [
        Case(question.turns, question.reference, question.wrong)
        for question in questions
        if question.reference and question.turns[-1].role == "user"
    ]
    matching, order = Matching(cases, encode), range(len(cases))
    means: dict[Key, np.ndarray] = {}
    done, step = 0, ROWS_AT_A_TIME
    while done < len(order) and step:
        start = time.monotonic()
        rows = order[done : done + step]
        keys = dict.fromkeys(key for row in rows for key in matching.keys(row))
        examples = matching.examples([key for key in keys if key not in means])
        tokens = {key: tokens_of(example) for key, example in examples.items()}
        means |= {key: -known[row] for key, row in tokens.items() if row in known}
        if unknown := [key for key in examples if key not in means]:
            losses = measure_losses([examples[key] for key in unknown], lambda _: None)
            means |= dict(zip(unknown, -losses.means, strict=True))
        done += len(rows)
        # The rest of the time may have room for a few rows still.
        each = (time.monotonic() - start) / len(rows)
        step = min(ROWS_AT_A_TIME, budget.room_for(each))
        on_progress(len(rows))
    measured: list[Measured] = []
    used: set[int] = set()
    for kind, group in GROUPS.items():
        found = {row: matching.right(kind, row, means) for row in order[:done]}
        right = {row: value for row, value in found.items() if value is not None}
        if not right:
            continue
        used |= set(right)
        base, tuned = np.stack([*right.values()]).T
        chance = matching.chance(kind, [*right])
        measured.append(measure(group, kind, base, tuned, "higher", binary=True, chance=chance))
    return MatchingResult(measured, done, done - len(used))


def describe_coverage(rows: int, answered: int, matched: MatchingResult) -> str:
    """Return how many rows were measured, as a sentence for the report; nothing without rows."""
    if not rows:
        return ""
    said = tr_later(
        "{answered} of {rows} rows were answered and {matched} matched",
        answered=answered,
        rows=rows,
        matched=matched.rows,
    )
    if min(answered, matched.rows) < rows:
        said = tr_later(
            "{said}; a random sample, within the time of --budget and the number of --answers",
            said=said,
        )
    if matched.left_out:
        said = tr_later(
            "{said}; {left_out} of those matched have no other answers to compare with",
            said=said,
            left_out=matched.left_out,
        )
    return tr_later("{said}.", said=said)
