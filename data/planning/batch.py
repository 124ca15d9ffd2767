"""Join examples into one flat batch."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import torch
from torch import Tensor

from data.beginnings.segments import Segments, divide
from data.messages import tr
from data.types import IGNORE, Batch, DataError, Example

Neighbors = tuple[Sequence[int], Sequence[int]]
"""Rows in an order in which those that begin alike are neighbors, and what neighbors share."""


def collate(
    examples: Sequence[Example],
    step_labels: int = 0,
    rng_key: int = 0,
    neighbors: Neighbors | None = None,
) -> Batch:
    """Lay rows end to end, each beginning that rows share once.

    Args:
        examples: At least one row.
        step_labels: Labeled tokens of the optimizer step that this micro-batch belongs to.
        rng_key: The seed of this micro-batch's dropout.
        neighbors: What the rows share, as ``Beginnings.neighbors`` returns it; None to share
            nothing.

    Raises:
        DataError: A row's first token has a label: nothing before it could predict it.
    """
    if any(example.labels[0] != IGNORE for example in examples):
        raise DataError(tr("a row's first token has a label, and no token before it predicts it"))
    order, common = neighbors or (range(len(examples)), [0] * len(examples))
    divided = divide([len(example.ids) for example in examples], order, common)
    segments, paths = divided
    _check_equal(examples, divided)
    lengths = tuple(end - start for _, start, end in segments)
    starts = [0, *accumulate(lengths)]
    ids = [token for row, start, end in segments for token in examples[row].ids[start:end]]
    labels = [label for row, start, end in segments for label in examples[row].labels[start:end]]
    predicting, targets = [], []
    for example, path in zip(examples, paths, strict=True):
        rest = path[-1]
        # All labels are in the rest. What predicts the first may be the last shared token.
        where = starts[rest] - segments[rest].start
        before = starts[path[-2] + 1] - 1 if len(path) > 1 else -1
        for at in range(segments[rest].start, len(example.ids)):
            if example.labels[at] != IGNORE:
                predicting.append(where + at - 1 if at > segments[rest].start else before)
                targets.append(example.labels[at])
    batch = Batch(
        input_ids=torch.tensor([ids]),
        labels=torch.tensor([labels]),
        position_ids=torch.cat([torch.arange(start, end) for _, start, end in segments])[None],
        cu_seqlens=torch.tensor(starts, dtype=torch.int32),
        predicting=torch.tensor(predicting, dtype=torch.int64),
        targets=torch.tensor(targets, dtype=torch.int64),
        lengths=lengths,
        step_labels=step_labels,
        rng_key=rng_key,
    )
    if len(segments) == len(examples):
        return batch
    seen = segment_paths(tuple(paths), len(segments))
    counts = [sum(lengths[segment] for segment in path) for path in seen]
    return replace(
        batch,
        paths=tuple(paths),
        seen=_tokens(batch, [segment for path in seen for segment in path]),
        cu_seen=torch.tensor([0, *accumulate(counts)], dtype=torch.int32),
    )


def segment_paths(paths: Sequence[tuple[int, ...]], segments: int) -> list[tuple[int, ...]]:
    """Return for each segment the beginnings that it continues, then itself.

    Args:
        paths: The segments of each row.
        segments: How many segments there are.
    """
    seen: list[tuple[int, ...]] = [()] * segments
    for path in paths:
        for place, segment in enumerate(path, 1):
            seen[segment] = path[:place]
    return seen


def separate(batch: Batch) -> Batch:
    """Return the same rows without a shared beginning, in the same order of labels."""
    if not batch.paths:
        return batch
    index = _tokens(batch, [segment for path in batch.paths for segment in path])
    lengths = batch.row_lengths
    labels = batch.labels[:, index]
    cu_seqlens = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    return replace(
        batch,
        input_ids=batch.input_ids[:, index],
        labels=labels,
        position_ids=batch.position_ids[:, index],
        cu_seqlens=cu_seqlens.to(index.device),
        # A row's first token has no label, so no row predicts a token of the next.
        predicting=(labels[0] != IGNORE).nonzero()[:, 0] - 1,
        lengths=lengths,
        paths=(),
        seen=None,
        cu_seen=None,
    )


def _tokens(batch: Batch, segments: Sequence[int]) -> Tensor:
    """Return where the tokens of some segments lie, on the batch's device."""
    parts = torch.arange(sum(batch.lengths)).split(batch.lengths)
    return torch.cat([parts[segment] for segment in segments]).to(batch.input_ids.device)


def _check_equal(examples: Sequence[Example], divided: Segments) -> None:
    """Check that rows which share a segment have its tokens there, and no labels."""
    for example, path in zip(examples, divided.paths, strict=True):
        for number in path[:-1]:
            row, start, end = divided.segments[number]
            same = example.ids[start:end] == examples[row].ids[start:end]
            if not same or example.labels[start:end] != [IGNORE] * (end - start):
                raise AssertionError("rows share a beginning that is not theirs")
