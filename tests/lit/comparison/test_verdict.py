"""The verdict: a table of rules over what the intervals show."""

from itertools import product

import numpy as np
import pytest

from lit.comparison.result import LossResult
from lit.comparison.verdict import RULES, judge
from lit.measures.losses import Losses
from lit.measures.matching import NEAREST, SIMILAR, WRONG
from lit.measures.measured import LEAST_LOSS, Group, Measured, Outcome

B, W, N, F, A, S = (
    Outcome.BETTER,
    Outcome.WORSE,
    Outcome.NOT_SHOWN,
    Outcome.TOO_FEW,
    Outcome.NOT_MEASURED,
    Outcome.TOO_SMALL,
)
LIMITS = {B: (0.1, 0.3), W: (-0.3, -0.1), N: (-0.1, 0.3), F: (None, None), S: (0.001, 0.003)}


def measured(group: Group, outcome: Outcome, name: str = "x") -> list[Measured]:
    """Return a measure with this outcome; none for one that was not measured."""
    if outcome is A:
        return []
    low, high = LIMITS[outcome]
    change = 0.2 if low is None or high is None else (low + high) / 2
    better = "higher"
    if group in (Group.STYLE, Group.FORGETTING, Group.CONDUCT):
        change, better = -change, "lower"
        low, high = (None, None) if high is None or low is None else (-high, -low)
    rows = 5 if outcome is F else 30
    least = LEAST_LOSS if group in (Group.STYLE, Group.FORGETTING) else 0.0
    values = 1.0, 1.0 + change, low, high, rows
    found = Measured(group, name, *values, better, least=least)  # type: ignore[arg-type]
    assert found.outcome is outcome
    return [found]


def four(style: Outcome, topic: Outcome, matching: Outcome, truth: Outcome) -> list[Measured]:
    return [
        *measured(Group.STYLE, style, "loss of the answers"),
        *measured(Group.MATCHING, topic, NEAREST),
        *measured(Group.MATCHING, matching, SIMILAR),
        *measured(Group.TRUTH, truth, WRONG),
    ]


CASES = [
    # style, equal length, similar questions, wrong answers, the verdict
    (B, N, N, A, "manner", "warn", "not shown"),
    (B, N, N, N, "manner", "warn", "not shown"),
    (B, A, A, A, "manner", "warn", "not shown"),
    (B, F, F, A, "manner", "warn", "not shown"),
    (B, W, N, A, "manner", "warn", "manner only"),
    (B, N, W, A, "manner", "warn", "manner only"),
    (B, B, N, A, "topic", "warn", "similar questions apart is not shown"),
    (N, B, N, A, "topic", "warn", "topic alone"),
    (B, B, B, A, "matching", "good", "in manner and in matching"),
    (B, N, B, A, "matching", "good", "in manner and in matching"),
    (N, B, B, N, "matching", "good", "in matching answers"),
    (B, B, B, B, "truth", "good", "in manner, in matching and in truth"),
    (B, N, N, B, "truth", "good", "in manner and in truth"),
    (N, N, N, B, "truth", "good", "in truth"),
    (W, N, N, A, "worse", "bad", "worse"),
    (W, W, W, W, "worse", "bad", "worse in truth"),
    (N, W, N, A, "worse", "bad", "less well"),
    (N, N, W, A, "worse", "bad", "less well"),
    (B, B, B, W, "mixed", "bad", "worse in truth"),
    (B, W, N, W, "worse", "bad", "worse in truth"),
    (W, B, B, A, "mixed", "bad", "worse in manner"),
    (W, N, N, B, "mixed", "bad", "worse in manner"),
    (B, W, B, A, "mixed", "bad", "worse in matching"),
    (N, N, N, A, "not shown", "warn", "No difference was shown"),
    (N, N, N, N, "not shown", "warn", "No difference was shown"),
    (S, N, N, N, "not shown", "warn", "No difference was shown"),
    (S, B, B, A, "matching", "good", "in manner no difference is shown"),
    (F, N, N, A, "none", "warn", "an interval needs 10"),
    (A, A, A, A, "none", "warn", "no reference answers"),
]


@pytest.mark.parametrize("case", CASES)
def test_the_rules_say_what_was_and_was_not_learned(case: tuple) -> None:
    *outcomes, kind, tone, sentence = case
    verdict = judge(four(*outcomes))
    assert (verdict.kind, verdict.tone) == (kind, tone)
    assert sentence in verdict.sentence


def test_every_rule_decides_some_case_and_a_better_loss_alone_is_never_good() -> None:
    used = set()
    for outcomes in product((B, W, N, F, A), repeat=4):
        fits = [all(x in s for x, s in zip(outcomes, rule[:4], strict=True)) for rule in RULES]
        rule = RULES[fits.index(True)]
        used.add(rule)
        if rule.tone == "good":
            assert B in outcomes[1:]
            assert W not in outcomes
    assert used == set(RULES)


def test_what_was_forgotten_and_what_got_worse_in_writing_is_part_of_it() -> None:
    found = [*four(B, B, B, A), *measured(Group.FORGETTING, W, "loss of general text")]
    found += [*measured(Group.CONDUCT, W, "4-grams repeated"), *measured(Group.WRITTEN, B, "chrF")]
    text = judge(found).text
    assert "It forgot general text: loss 1.000 → 1.200." in text
    assert "Conduct: 4-grams repeated" in text
    assert "The answers as written: chrF" in text
    for outcome in (N, S):
        same = [*four(B, B, B, A), *measured(Group.FORGETTING, outcome, "loss of general text")]
        assert "general text" not in judge(same).text


@pytest.mark.parametrize("group", [Group.WRITTEN, Group.CONDUCT, Group.OWN, Group.FORGETTING])
def test_what_got_worse_beside_the_rules_is_in_the_sentence_and_takes_the_good_tone(group: Group):
    for outcome in (W, N, F, B):
        verdict = judge([*four(B, B, B, A), *measured(group, outcome, "it")])
        assert verdict.kind == "matching"
        worse = outcome is W
        assert verdict.sentence.endswith(f"Worse: {group.value} (it).") is worse
        assert verdict.tone == ("warn" if worse else "good")
    assert judge([*four(W, N, N, A), *measured(group, W, "it")]).tone == "bad"


def test_a_loss_that_hardly_moved_is_neither_better_nor_worse_however_sure_it_is() -> None:
    base, labels = np.linspace(20, 60, 30), np.full(30, 10)
    for change, outcome in ((-0.004, S), (0.004, S), (-0.006, B), (0.006, W)):
        loss = LossResult.of(Losses(base, base + 10 * change, labels))
        assert loss.measured(Group.STYLE, "loss of the answers").outcome is outcome


def test_not_shown_says_how_many_rows_would_show_it() -> None:
    # The interval is 0.4 wide around 0.1: four times the rows halve it, and four are enough.
    text = judge(four(B, N, N, A)).text
    assert "about 120 rows would show a difference of this size" in text
