"""Rows share what they begin with: never a label, never a whole row, never a few tokens."""

from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from data.beginnings.beginnings import Beginnings
from data.beginnings.find import MIN_SHARED, find_beginnings
from data.beginnings.segments import divide
from data.planning.batch import collate, separate
from data.planning.epoch_plans import EpochPlans
from data.planning.loader import MicroBatches, neighbors_of
from data.planning.micro_batches import LONG
from data.planning.plan import Plan, plan_epoch
from data.store import build_store
from data.types import IGNORE, DataError, Example


@st.composite
def row_sets(draw: st.DrawFn) -> list[Example]:
    """Rows of few different tokens, many of which go on from another row's beginning."""
    rows: list[Example] = []
    for _ in range(draw(st.integers(1, 9))):
        kept: list[int] = []
        if rows and draw(st.booleans()):
            parent = draw(st.sampled_from(rows)).ids
            kept = parent[: draw(st.integers(0, len(parent)))]
        ids = kept + draw(st.lists(st.integers(0, 2), min_size=1, max_size=24))
        first = draw(st.integers(1, len(ids)))
        rows.append(Example(ids, [IGNORE] * first + ids[first:]))
    return rows


many = settings(max_examples=200, deadline=None)


def may_share(row: Example) -> int:
    """The tokens before a row's first label, and never all; counted one by one."""
    labeled = [place for place, label in enumerate(row.labels) if label != IGNORE]
    return min(labeled[0] if labeled else len(row.ids), len(row.ids) - 1)


def in_common(first: Example, second: Example) -> int:
    """The tokens that two rows could share, counted one by one."""
    most = min(may_share(first), may_share(second))
    pairs = zip(first.ids[:most], second.ids[:most], strict=True)
    return next((place for place, (x, y) in enumerate(pairs) if x != y), most)


def of_pair(beginnings: Beginnings, pair: tuple[int, int]) -> int:
    return int(beginnings.neighbors(np.array(pair))[1][1])


@many
@given(rows=row_sets())
def test_two_rows_share_all_they_can_but_for_less_than_the_fewest_tokens(rows):
    beginnings = find_beginnings(rows)
    for pair in combinations(range(len(rows)), 2):
        could, do = in_common(rows[pair[0]], rows[pair[1]]), of_pair(beginnings, pair)
        assert do <= could < do + MIN_SHARED
        assert do == 0 or do >= MIN_SHARED


def test_a_beginning_that_no_other_ends_in_is_shared_to_its_last_token():
    every, document = list(range(10, 35)), list(range(50, 250))
    rows = [[*every, *document, 1, 2], [*every, *document, 3, 4], [*every, 5, 6], [*every, 7, 8]]
    beginnings = find_beginnings([Example(ids, [IGNORE] * len(ids)) for ids in rows])
    pairs = [of_pair(beginnings, pair) for pair in combinations(range(4), 2)]
    assert pairs == [225, 25, 25, 25, 25, 25]


@many
@given(rows=row_sets())
def test_a_batch_has_each_token_of_its_segments_once_and_every_row_comes_back(rows):
    beginnings, every = find_beginnings(rows), np.arange(len(rows))
    batch, plain = collate(rows, neighbors=neighbors_of(beginnings, every)), collate(rows)
    saved = int(beginnings.saved(every, np.array([0, len(rows)]))[0])
    assert batch.input_ids.numel() == sum(batch.lengths) == sum(len(x.ids) for x in rows) - saved
    assert batch.row_lengths == plain.lengths
    again = separate(batch)
    for name in ("input_ids", "labels", "position_ids", "cu_seqlens", "predicting", "targets"):
        assert torch.equal(getattr(again, name), getattr(plain, name)), name
    # Labels are in the order of the rows, and predicted by the token before them.
    assert torch.equal(batch.targets, plain.targets)
    for name in ("input_ids", "position_ids"):
        ours, theirs = getattr(batch, name)[0], getattr(plain, name)[0]
        assert torch.equal(ours[batch.predicting], theirs[plain.predicting])


@many
@given(rows=row_sets())
def test_a_beginning_has_no_label_and_is_no_row_and_has_several(rows):
    every = np.arange(len(rows))
    batch = collate(rows, neighbors=neighbors_of(find_beginnings(rows), every))
    if not batch.paths:
        return
    labels, ends = batch.labels[0].split(batch.lengths), [path[-1] for path in batch.paths]
    assert len(set(ends)) == len(rows)
    for number, length in enumerate(batch.lengths):
        rows_of_it = sum(number in path for path in batch.paths)
        if number in ends:
            assert rows_of_it == 1
            assert length >= 1
        else:
            assert rows_of_it > 1
            assert length >= MIN_SHARED
            assert (labels[number] == IGNORE).all()
    # What a segment sees lies before it.
    for path in batch.paths:
        assert list(path) == sorted(path)


@many
@given(rows=row_sets())
def test_a_segment_sees_the_tokens_of_its_rows_from_the_first_one_on(rows):
    every = np.arange(len(rows))
    batch = collate(rows, neighbors=neighbors_of(find_beginnings(rows), every))
    if batch.seen is None or batch.cu_seen is None:
        assert not batch.paths
        return
    seen = batch.seen.split(batch.cu_seen.diff().tolist())
    positions = batch.position_ids[0]
    for tokens, length in zip(seen, batch.lengths, strict=True):
        assert torch.equal(positions[tokens], torch.arange(len(tokens)))
        assert length <= len(tokens)
    for row, path in zip(rows, batch.paths, strict=True):
        assert batch.input_ids[0][seen[path[-1]]].tolist() == row.ids


def test_rows_that_are_said_to_share_what_they_do_not_are_refused():
    rows = [Example([*range(n, n + 20)], [IGNORE] * 20) for n in (0, 1)]
    with pytest.raises(AssertionError, match="not theirs"):
        collate(rows, neighbors=([0, 1], [0, 9]))
    labeled = [Example([*range(20)], [IGNORE, *range(1, 20)]) for _ in range(2)]
    with pytest.raises(AssertionError, match="not theirs"):
        collate(labeled, neighbors=([0, 1], [0, 9]))


def test_many_nested_beginnings_need_no_deep_recursion():
    count = 3000
    common = [0, *(8 * row for row in range(1, count))]
    lengths = [8 * row + 9 for row in range(count)]
    segments, paths = divide(lengths, range(count), common)
    assert len(paths[-1]) == count
    assert sum(end - start for _, start, end in segments) == sum(lengths) - sum(common)


# The plan


def documents(count: int, questions: int, seed: int = 0) -> list[Example]:
    """Rows of 20 shared tokens, a document of 40 to 59, and a question, with 3 labels; mixed."""
    random = np.random.default_rng(seed)
    system = random.integers(0, 1000, 20).tolist()
    rows = []
    for _ in range(count):
        text = random.integers(0, 1000, int(random.integers(40, 60))).tolist()
        for _ in range(questions):
            ids = system + text + random.integers(0, 1000, int(random.integers(6, 20))).tolist()
            rows.append(Example(ids, [IGNORE] * (len(ids) - 3) + ids[-3:]))
    return [rows[i] for i in random.permutation(len(rows))]


ROWS = documents(30, 5)
FOUND = find_beginnings(ROWS)
LENGTHS = np.array([len(row.ids) for row in ROWS])
LABELS = np.full(len(ROWS), 3)


def make(**changes) -> Plan:
    arguments = {"batch_size": 4, "seed": 1, "beginnings": FOUND} | changes
    return plan_epoch(LENGTHS, LABELS, **arguments)


def sets(plan: Plan) -> list[list[int]]:
    return [
        plan.rows(rank, step).tolist()
        for step in range(plan.micro_steps)
        for rank in range(plan.world_size)
    ]


def batch_tokens(rows: list[int]) -> int:
    """The tokens of the batch that is made of rows."""
    chosen = np.array(rows, dtype=np.int64)
    if not rows:
        return 0
    batch = collate([ROWS[row] for row in rows], neighbors=neighbors_of(FOUND, chosen))
    return batch.input_ids.numel()


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("max_tokens", [None, 100, 240])
@pytest.mark.parametrize("group_by_prefix", [False, True])
def test_the_plan_knows_the_tokens_of_every_batch(world_size, max_tokens, group_by_prefix):
    plan = make(
        world_size=world_size,
        max_tokens=max_tokens,
        group_by_prefix=group_by_prefix,
        batch_size=7,
        accumulate=2,
    )
    tokens = [batch_tokens(rows) for rows in sets(plan)]
    assert plan.tokens.tolist() == tokens
    assert sum(tokens) < LENGTHS.sum()
    assert max(tokens) <= (max_tokens or np.inf)
    assert sorted(plan.order.tolist()) == list(range(len(ROWS)))


@pytest.mark.parametrize("max_tokens", [100, 150, 240])
def test_a_micro_batch_takes_rows_until_their_segments_reach_the_limit(max_tokens):
    batches = sets(make(max_tokens=max_tokens, batch_size=6))
    assert len(batches) < len(sets(make(max_tokens=max_tokens, batch_size=6, beginnings=None)))
    for rows, following in pairwise(batches):
        assert len(rows) == 6 or batch_tokens([*rows, following[0]]) > max_tokens


@pytest.mark.parametrize("group_by_length", [False, True])
@pytest.mark.parametrize("world_size", [1, 2])
def test_without_a_token_limit_sharing_moves_no_row_between_micro_batches(
    group_by_length, world_size
):
    changes = {"group_by_length": group_by_length, "world_size": world_size, "accumulate": 2}
    plans = [make(**changes), make(beginnings=None, **changes)]
    by_id = [
        dict(zip(plan.batch_ids.tolist(), map(sorted, sets(plan)), strict=True)) for plan in plans
    ]
    assert by_id[0] == by_id[1]
    assert plans[1].tokens.sum() == LENGTHS.sum()


@pytest.mark.parametrize("batch_size", [2, 4, 7])
def test_grouping_by_prefix_saves_tokens_and_draws_other_groups_in_each_epoch(batch_size):
    apart, grouped, later = (
        make(batch_size=batch_size, **changes)
        for changes in ({}, {"group_by_prefix": True}, {"group_by_prefix": True, "epoch": 1})
    )
    assert grouped.tokens.sum() < 0.9 * apart.tokens.sum()
    assert len(sets(grouped)) == len(sets(apart))
    assert {frozenset(rows) for rows in sets(grouped)} != {frozenset(rows) for rows in sets(later)}
    again = make(batch_size=batch_size, group_by_prefix=True)
    assert np.array_equal(grouped.order, again.order)


def test_grouping_by_prefix_does_not_go_from_document_to_document():
    plan = make(batch_size=1, group_by_prefix=True)
    neighbors = [of_pair(FOUND, tuple(pair)) for pair in pairwise(plan.order)]
    assert np.mean(np.array(neighbors) > 20) < 0.2


def test_rows_that_share_little_stay_mixed():
    random = np.random.default_rng(0)
    start = [random.integers(0, 1000, LONG - 1).tolist() for _ in range(10)]
    rows = [[*start[row % 10], row, row] for row in range(100)]
    found = find_beginnings([Example(ids, [IGNORE] * len(ids)) for ids in rows])
    arguments = {"batch_size": 10, "seed": 1, "beginnings": found, "group_by_prefix": True}
    plan = plan_epoch(np.full(100, LONG + 1), np.zeros(100, dtype=int), **arguments)
    kinds = [len(np.unique(plan.rows(0, step) % 10)) for step in range(plan.micro_steps)]
    assert min(kinds) > 3


def test_grouping_in_two_ways_and_by_what_is_not_shared_is_refused():
    with pytest.raises(DataError, match="exclude each other"):
        make(group_by_length=True, group_by_prefix=True)


# The store


def test_a_store_knows_what_its_rows_share_and_batches_of_it_share_it(
    tmp_path, tokenizer: PreTrainedTokenizerFast
):
    path = tmp_path / "rows.csv"
    document = "a long text that several questions are about; " * 3
    lines = [f"{document} {what}?,{what}" for what in ("who", "why", "how")]
    path.write_text("\n".join(["question,answer", *lines, "how,so"]))
    store = build_store(path, tokenizer, max_length=400)
    examples = [store.example(row) for row in range(len(store))]
    expected = find_beginnings(examples)
    assert np.array_equal(store.beginnings.rank, expected.rank)
    assert np.array_equal(store.beginnings.common, expected.common)
    rows = np.array([3, 1, 0])
    plans = EpochPlans.of(store, rows, True, batch_size=3)
    [batch] = [MicroBatches(store, rows, plans, 0)[0]]
    saved = sum(batch.row_lengths) - batch.input_ids.numel()
    assert saved >= len(tokenizer.encode(document)) - MIN_SHARED
    assert plans.epoch(0).tokens.tolist() == [batch.input_ids.numel()]
    apart = EpochPlans.of(store, rows, False, batch_size=3)
    assert not MicroBatches(store, rows, apart, 0)[0].paths
    with pytest.raises(DataError, match="needs `share_prefixes`"):
        EpochPlans.of(store, rows, False, batch_size=3, group_by_prefix=True)
