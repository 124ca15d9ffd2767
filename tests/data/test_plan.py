"""Properties of every plan of an epoch."""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest

from data.planning.micro_batches import micro_batches
from data.planning.plan import Plan, plan_epoch
from data.types import DataError


class Case(NamedTuple):
    rows: int
    batch_size: int
    max_tokens: int | None
    accumulate: int
    world_size: int


CASES = [
    Case(1, 1, None, 1, 1),
    Case(7, 2, None, 1, 1),
    Case(100, 4, None, 3, 1),
    Case(100, 4, 64, 2, 1),
    Case(200, 16, 128, 1, 3),
    Case(101, 8, 100, 4, 2),
    Case(97, 3, None, 2, 4),
    Case(64, 4, None, 4, 4),
    Case(50, 1, 64, 1, 2),
    Case(9, 8, None, 2, 8),
    Case(3, 4, None, 1, 8),
    Case(2, 1, None, 3, 8),
]
BALANCED = [Case(400, 8, 100, 4, 2), Case(400, 3, None, 2, 4), Case(400, 4, None, 4, 4)]

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))


def random_rows(rows: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    lengths = random.integers(4, 65, rows)
    return lengths, random.integers(1, lengths)


def make(case: Case, **changes: Any) -> Plan:
    arguments = case._asdict() | {"seed": 1} | changes
    return plan_epoch(*random_rows(arguments.pop("rows")), **arguments)


def steps_of(made: Plan) -> list[list[list[np.ndarray]]]:
    """Return the micro-batches as [step][micro-step within the step][rank]."""
    micro_steps = [
        [made.rows(rank, t) for rank in range(made.world_size)] for t in range(made.micro_steps)
    ]
    return [
        micro_steps[i : i + made.accumulate] for i in range(0, len(micro_steps), made.accumulate)
    ]


def spread(ranks: list[list[np.ndarray]], lengths: np.ndarray) -> int:
    """Return the difference in tokens between the ranks with the most and the fewest."""
    tokens = [sum(int(lengths[group].sum()) for group in groups) for groups in ranks]
    return max(tokens) - min(tokens)


@every_case
def test_every_row_is_computed_once_and_every_rank_has_as_many_micro_steps(case: Case) -> None:
    made = make(case)
    groups = [group for step in steps_of(made) for micro_step in step for group in micro_step]
    assert sorted(np.concatenate(groups)) == list(range(case.rows))
    assert len(made.starts) - 1 == made.micro_steps * case.world_size
    assert made.steps == -(-made.micro_steps // case.accumulate)


@every_case
def test_a_micro_batch_stays_within_both_limits(case: Case) -> None:
    lengths, _ = random_rows(case.rows)
    for step in steps_of(make(case)):
        for group in (group for micro_step in step for group in micro_step):
            assert len(group) <= case.batch_size
            assert lengths[group].sum() <= (case.max_tokens or np.inf)


@pytest.mark.parametrize("case", [case for case in CASES if case.world_size == 1])
def test_a_micro_batch_takes_rows_until_a_limit_is_reached(case: Case) -> None:
    lengths, _ = random_rows(case.rows)
    groups = [micro_step[0] for step in steps_of(make(case)) for micro_step in step]
    for group, following in pairwise(groups):
        tokens = lengths[group].sum() + lengths[following[0]]
        assert len(group) == case.batch_size or tokens > (case.max_tokens or np.inf)


@every_case
def test_no_rank_is_idle_before_the_last_micro_step(case: Case) -> None:
    made = make(case)
    *before, last = [micro_step for step in steps_of(made) for micro_step in step]
    assert all(len(group) for micro_step in before for group in micro_step)
    assert any(len(group) for group in last)


@every_case
def test_micro_batches_are_the_same_for_any_number_of_ranks(case: Case) -> None:
    alone = make(case, world_size=1, accumulate=1)
    expected = {
        alone.batch_id(0, micro_step): alone.rows(0, micro_step).tolist()
        for micro_step in range(alone.micro_steps)
    }
    assert list(expected) == list(range(alone.micro_steps))
    made = make(case)
    batches = {
        made.batch_id(rank, micro_step): made.rows(rank, micro_step).tolist()
        for micro_step in range(made.micro_steps)
        for rank in range(case.world_size)
        if len(made.rows(rank, micro_step))
    }
    assert batches == expected


@every_case
@pytest.mark.parametrize("skip", [0, 1, 2, 5, 1000])
def test_skip_leaves_out_exactly_the_first_micro_batches(case: Case, skip: int) -> None:
    rows, starts = micro_batches(
        random_rows(case.rows)[0], batch_size=case.batch_size, max_tokens=case.max_tokens, seed=1
    )
    begin = starts[min(skip, len(starts) - 1)]
    made = make(case, skip=skip)
    assert sorted(made.order) == sorted(rows[begin:])
    assert made.labels.sum() == random_rows(case.rows)[1][rows[begin:]].sum()
    assert made.micro_steps == -(-max(len(starts) - 1 - skip, 0) // case.world_size)


@every_case
def test_labels_are_counted_over_the_whole_step_and_all_ranks(case: Case) -> None:
    made = make(case)
    _, targets = random_rows(case.rows)
    sums = [
        sum(int(targets[g].sum()) for micro_step in step for g in micro_step)
        for step in steps_of(made)
    ]
    assert made.labels.tolist() == sums
    assert sum(sums) == targets.sum()
    for micro_step in range(made.micro_steps):
        assert made.step_labels(micro_step) == sums[micro_step // case.accumulate]


@pytest.mark.parametrize(
    ("changes", "equal"),
    [({}, True), ({"epoch": 1}, False), ({"seed": 2}, False), ({"seed": None}, False)],
)
@pytest.mark.parametrize("case", [case for case in CASES if case.rows >= 50])
def test_seed_and_epoch_determine_the_order(
    case: Case, changes: dict[str, Any], equal: bool
) -> None:
    first, second = make(case), make(case, **changes)
    assert np.array_equal(first.order, second.order) == equal
    assert not equal or np.array_equal(first.starts, second.starts)


@pytest.mark.parametrize("case", [case for case in CASES if case.world_size == 1])
def test_without_a_seed_rows_keep_their_order_in_every_epoch(case: Case) -> None:
    for epoch in range(2):
        assert make(case, seed=None, epoch=epoch).order.tolist() == list(range(case.rows))


@pytest.mark.parametrize("case", BALANCED)
def test_ranks_are_more_balanced_than_without_reordering(case: Case) -> None:
    lengths, _ = random_rows(case.rows)
    world_size = case.world_size
    # A single rank gets the same micro-batches in their original order.
    in_order = make(case, world_size=1, accumulate=case.accumulate * world_size)
    balanced = unbalanced = 0
    for step, alone in zip(steps_of(make(case))[:-1], steps_of(in_order)[:-1], strict=True):
        groups = [micro_step[0] for micro_step in alone]
        balanced += spread(
            [[micro_step[rank] for micro_step in step] for rank in range(world_size)], lengths
        )
        unbalanced += spread([groups[rank::world_size] for rank in range(world_size)], lengths)
    assert balanced < unbalanced / 2


def test_with_fewer_micro_batches_than_ranks_some_ranks_are_idle() -> None:
    made = make(Case(3, 1, None, 1, 8))
    assert made.micro_steps == made.steps == 1
    assert sorted(len(made.rows(rank, 0)) for rank in range(8)) == [0] * 5 + [1] * 3


def test_without_rows_there_are_no_steps() -> None:
    made = make(Case(0, 4, 64, 1, 2))
    assert (made.micro_steps, made.steps) == (0, 0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"max_tokens": 63},
            "`max_tokens` is 63, but the longest row has 64 tokens: "
            "raise `max_tokens` or lower `max_length`",
        ),
        ({"batch_size": 0}, "`batch_size` is 0; it must be 1 or more"),
        ({"accumulate": 0}, "`accumulate` is 0; it must be 1 or more"),
    ],
)
def test_an_impossible_plan_is_refused(changes: dict[str, int], reason: str) -> None:
    case = Case(200, 4, 64, 1, 1)
    assert make(case).steps
    with pytest.raises(DataError, match=reason):
        make(case, **changes)


@pytest.mark.parametrize("max_tokens", [None, 512])
def test_a_plan_of_many_rows_contains_every_row(max_tokens: int | None) -> None:
    made = make(Case(200_000, 16, max_tokens, 4, 8))
    assert np.array_equal(np.sort(made.order), np.arange(200_000))


GROUPED = [case for case in CASES if case.rows >= 50]
every_grouped = pytest.mark.parametrize("case", GROUPED, ids=lambda case: "-".join(map(str, case)))


@every_grouped
def test_grouped_by_length_rows_of_a_micro_batch_have_similar_lengths(case: Case) -> None:
    lengths, _ = random_rows(case.rows)

    def mean_spread(**changes: Any) -> float:
        groups = [
            group
            for step in steps_of(make(case, **changes))
            for micro_step in step
            for group in micro_step
        ]
        return float(np.mean([np.ptp(lengths[group]) for group in groups if len(group)]))

    assert mean_spread(group_by_length=True) < max(0.5 * mean_spread(), 1)


@every_grouped
def test_grouped_by_length_seed_and_epoch_determine_the_order(case: Case) -> None:
    first, again = (make(case, group_by_length=True) for _ in range(2))
    assert np.array_equal(first.order, again.order)
    for changes in ({"epoch": 1}, {"seed": 2}):
        assert not np.array_equal(first.order, make(case, group_by_length=True, **changes).order)


def test_grouped_by_length_short_rows_do_not_come_first() -> None:
    case = Case(2000, 8, None, 1, 1)
    lengths, _ = random_rows(case.rows)
    made = make(case, group_by_length=True)
    means = [lengths[made.rows(0, micro_step)].mean() for micro_step in range(made.micro_steps)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2


@every_grouped
def test_grouped_by_length_without_a_seed_every_epoch_has_one_order(case: Case) -> None:
    made = make(case, group_by_length=True, seed=None)
    again = make(case, group_by_length=True, seed=None, epoch=5)
    assert np.array_equal(made.order, again.order)
