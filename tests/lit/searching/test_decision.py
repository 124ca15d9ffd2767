"""What a search says: a table of rules over what the rows show."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from searches import Run, make, realistic

from lit.measures.differences import Difference
from lit.measures.intervals import paired_interval
from lit.measures.measured import Outcome
from lit.searching.outcome.decision import decide
from lit.searching.outcome.rules import RULES, Own, Seeds, find_rule, outcome
from lit.searching.outcome.ties import candidates, finalists
from lit.searching.records import Search

OWN, LOW, HIGH = Run(), 0.02, 0.2
B, W, N, F, A = (
    Outcome.BETTER,
    Outcome.WORSE,
    Outcome.NOT_SHOWN,
    Outcome.TOO_FEW,
    Outcome.NOT_MEASURED,
)
CASES = {
    # the runs after the config's own, the kind, the winner, the tone, part of the text
    "a better one": ([Run(HIGH, lr=5e-4)], "better once", 1, "good", "another seed changes"),
    "a worse one": ([Run(-HIGH, lr=5e-4)], "own", 0, "good", "the best of the 2"),
    "equal and cheaper": ([Run(r=4)], "tied", 1, "warn", "fewest trainable parameters: 1,221,120"),
    "equal and dearer": ([Run(r=32)], "own tied", 0, "warn", "taken from 2"),
    "equal with fewer steps": ([Run(lr=1e-4, steps=50)], "tied", 1, "warn", "fewest steps: 50"),
    "good on the choosing rows alone": (
        [Run(HIGH, 0.0, lr=5e-4)],
        "not confirmed",
        1,
        "warn",
        "no difference",
    ),
    "worse on the reporting rows": (
        [Run(HIGH, -HIGH, lr=5e-4)],
        "worse",
        0,
        "bad",
        "own settings are kept",
    ),
    "not reported": ([Run(HIGH, lr=5e-4, reported=False)], "no report", 1, "warn", "not measured"),
    "nothing else": ([], "only own", 0, "warn", "no trial with other settings"),
    "only failures else": ([Run(lr=1.0, state="failed")], "only own", 0, "warn", "1 failed"),
    "seeds that matter as much": (
        [Run(seed=2), Run(0.1, 0.1, lr=5e-4), Run(0.4, 0.1, lr=5e-4, seed=2)],
        "seeds",
        2,
        "warn",
        "with other seeds other settings could be best",
    ),
    "seeds that matter less": (
        [Run(seed=2), Run(HIGH, lr=5e-4), Run(HIGH + 0.02, lr=5e-4, seed=2)],
        "better",
        2,
        "good",
        "the adapter is that of trial 2, which has the config's seed 1",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_decision_says_what_was_and_was_not_learned(name: str) -> None:
    runs, kind, winner, tone, text = CASES[name]
    found = decide(make([OWN, *runs]))
    assert (found.kind, found.winner, found.tone) == (kind, winner, tone), found.text
    assert text in found.text


def test_every_combination_of_facts_has_a_rule_and_only_a_shown_gain_is_called_better() -> None:
    used = set()
    for facts in product(Own, Outcome, Outcome, Seeds):
        rule = find_rule(*facts)
        used.add(rule)
        if rule.kind == "better":
            assert facts[1] is B
            assert facts[2] is not W
            assert facts[3] is Seeds.SMALL
        if facts[2] is W:
            assert rule.tone == "bad"
    assert used == set(RULES)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-2.0, -1.0, B), (1.0, 2.0, W), (-1.0, 1.0, N), (0.0, 1.0, N), (None, None, F)],
)
def test_a_lower_loss_is_better(low: float | None, high: float | None, expected: Outcome) -> None:
    assert outcome(Difference(0.0, low, high)) is expected
    assert outcome(None) is A


def test_an_adapter_that_is_worse_than_the_base_is_not_praised() -> None:
    found = decide(make([Run(-2.0), Run(-1.0, lr=5e-4)]))
    assert found.kind == "worse than base"
    assert found.tone == "bad"


@pytest.mark.parametrize("rows", [(9, 40), (40, 9), (0, 0)])
def test_too_few_rows_choose_nothing(rows: tuple[int, int]) -> None:
    found = decide(make([OWN, Run(HIGH, lr=5e-4)], rows))
    assert (found.kind, found.facts) == ("too few", None)
    assert found.winner == (0 if rows[0] else None)
    assert f"{rows[0]} rows to choose by and {rows[1]} rows to report on" in found.sentence


def test_ten_rows_of_each_kind_choose() -> None:
    assert decide(make([OWN, Run(HIGH, lr=5e-4)], (10, 10))).kind == "better once"


def test_a_search_without_a_finished_trial_takes_nothing() -> None:
    found = decide(make([Run(state="failed"), Run(lr=1e-3, state="stopped early")]))
    assert (found.kind, found.winner) == ("none", None)
    assert "1 stopped early and 1 failed" in found.text
    assert decide(replace(make([OWN]), trials=())).kind == "none"


def test_other_settings_are_taken_where_the_own_ones_failed() -> None:
    found = decide(make([Run(state="failed"), Run(HIGH, lr=5e-4), Run(lr=1e-3)]))
    assert (found.kind, found.winner) == ("own failed", 1)
    assert found.facts is not None
    assert found.facts.gain_report is None
    assert found.facts.over_base is not None
    assert found.facts.over_base.value < 0


def spoiled(search: Search, number: int, part: str, value: float) -> Search:
    """Return the search with one loss of a trial replaced."""
    trials = list(search.trials)
    sums = getattr(trials[number], part)
    trials[number] = replace(trials[number], **{part: (value, *sums[1:])})
    return replace(search, trials=tuple(trials))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_never_wins(value: float) -> None:
    search = make([OWN, Run(HIGH, lr=5e-4), Run(LOW, lr=1e-3)])
    found = decide(spoiled(search, 1, "choose", value))
    assert found.facts is not None
    assert 1 not in [one.kept.number for one in found.facts.compared]
    assert "nan" not in found.text
    assert "inf" not in found.text
    assert decide(spoiled(search, 1, "report", value)).kind == "no report"
    assert decide(spoiled(search, 0, "choose", value)).kind == "own failed"
    without = decide(replace(search, base_report=(value, *search.base_report[1:])))
    assert without.facts is not None
    assert without.facts.over_base is None
    assert without.kind == "better once"


def test_trials_that_ran_the_whole_schedule_are_compared_with_each_other_alone() -> None:
    finals = [Run(lr=1e-3, r=16, full=True), Run(HIGH, lr=5e-4, full=True)]
    found = decide(make([Run(full=False), Run(3 * HIGH, lr=7e-4, full=False), *finals]))
    assert found.facts is not None
    assert [one.kept.number for one in found.facts.compared] == [3, 2]
    assert "did not run the whole schedule" in found.text
    screened = decide(make([Run(full=False), Run(HIGH, lr=5e-4, full=False)]))
    assert screened.winner == 1
    assert "No trial ran the whole schedule" in screened.text


def test_a_trial_that_was_stopped_early_is_never_taken() -> None:
    assert decide(make([OWN, Run(HIGH, lr=5e-4, state="stopped early")])).winner == 0


def test_two_settings_are_compared_by_the_plain_paired_interval() -> None:
    search = make([OWN, Run(LOW, lr=5e-4)])
    own, other = (np.array(trial.choose) for trial in search.trials)
    labels = np.array(search.choose_labels, float)
    last = candidates(search, search.trials)[-1]
    plain = paired_interval(own - other, labels)
    assert plain is not None
    assert (last.to_best.low, last.to_best.high) == pytest.approx(tuple(plain))


def test_more_settings_widen_the_intervals_but_copies_do_not() -> None:
    runs = [OWN, *(Run(lr=1e-4 + 1e-5 * i) for i in range(11))]
    search = make(runs)

    def width(found: Search) -> float:
        """Return the width of the interval of the last settings."""
        one = candidates(found, found.trials)[-1].to_best
        assert one.low is not None
        assert one.high is not None
        return one.high - one.low

    two = candidates(search, search.trials)
    pair = replace(search, trials=(two[0].kept, two[-1].kept))
    assert width(search) > 1.4 * width(pair)
    copy = [replace(two[0].kept, number=50 + i, settings={"model.lr": i}) for i in range(9)]
    assert width(replace(pair, trials=(*pair.trials, *copy))) == pytest.approx(
        width(pair), rel=0.03
    )


SEEDS = {
    # what the second seed changes of the config's own settings and of others, and which are tied
    "one seed": (None, 1, 1),
    "both alike": ((0.3, 0.3), 1, 1),
    "the one more than the other": ((0.3, -0.3), 2, 1),
    "by less than the rows": ((0.001, -0.001), 1, 1),
}


@pytest.mark.parametrize("name", SEEDS)
def test_settings_are_tied_where_a_seed_changes_one_more_than_the_other(name: str) -> None:
    """They differ by 0.6; the rows alone tell them apart, and the better ones are taken."""
    changes, tied, tied_by_rows = SEEDS[name]
    runs = [OWN, Run(0.6, lr=5e-4)]
    if changes:
        runs += [Run(changes[0], seed=2), Run(0.6 + changes[1], lr=5e-4, seed=2)]
    facts = decide(make(runs, noise=0.003)).facts
    assert facts is not None
    assert (len(facts.tied), len(facts.tied_by_rows)) == (tied, tied_by_rows)
    assert facts.preferred.settings["model.lr"] == 5e-4
    assert (facts.seed_spread is None) == (changes is None)


def test_runs_are_compared_with_runs_of_the_same_seed() -> None:
    """The second seed is worse by 1 for all; others ran with the first seed alone."""
    runs = [OWN, Run(-1.0, seed=2), Run(0.3, lr=5e-4), Run(-0.7, lr=5e-4, seed=2)]
    late = Run(0.2, lr=7e-4)
    facts = decide(make([*runs, late], noise=0.003)).facts
    assert facts is not None
    assert [one.kept.number for one in facts.compared] == [2, 4, 0]
    assert [one.to_best.value for one in facts.compared] == pytest.approx([0, 0.1, 0.3], abs=0.01)
    swapped = [OWN, Run(-1.0, seed=2), late]
    alone = decide(make(swapped, noise=0.003)).facts
    assert alone is not None
    assert alone.gain_report is not None
    assert alone.report_losses is not None
    assert alone.gain_report.value == pytest.approx(-0.2, abs=0.01)
    difference = alone.report_losses[0] - alone.report_losses[1]
    assert difference == pytest.approx(alone.gain_report.value)


def test_the_gain_is_measured_by_the_reporting_rows_and_the_flattery_is_what_they_lack() -> None:
    search = make([OWN, Run(0.2, 0.15, lr=5e-4)], noise=0.005)
    facts = decide(search).facts
    assert facts is not None
    assert facts.gain_report
    assert facts.gain_choose
    assert facts.flattery
    own, other = (np.array(trial.report) for trial in search.trials)
    expected = (other - own).sum() / sum(search.report_labels)
    assert facts.gain_report.value == pytest.approx(expected)
    assert facts.flattery.value == pytest.approx(0.05, abs=0.005)
    assert facts.flattery.low is not None
    assert facts.flattery.low > 0.04
    changed = replace(search, trials=(search.trials[0], replace(search.trials[1], report=None)))
    again = decide(changed).facts
    assert again is not None
    assert again.gain_choose == facts.gain_choose


def test_finalists_are_the_own_the_best_and_the_cheapest_of_the_tied() -> None:
    runs = [
        Run(full=False),
        Run(0.2, lr=5e-4, r=32, full=False),
        Run(0.2, lr=5e-4, r=4, modules="attention", full=False),
        Run(0.2, lr=6e-4, r=16, full=False),
        Run(0.5, lr=9e-4, full=False, state="stopped early"),
    ]
    search = make(runs)
    for most in (3, 4, 9):
        found = [trial.number for trial in finalists(search, most)]
        assert len(found) == len(set(found)) == min(most, 4)
        assert {0, 2} <= set(found)
        assert found[0] == 0
    assert finalists(make([Run(state="failed", full=False)]), 3) == []


def test_the_decision_of_a_long_search_names_its_parts() -> None:
    found = decide(realistic())
    assert found.kind == "better"
    for part in (
        "reporting rows",
        "flatter",
        "told apart",
        "Another seed changes the losses",
        "stopped early",
    ):
        assert part in found.text
