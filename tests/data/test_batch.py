"""A flat batch contains its rows end to end."""

from dataclasses import fields

import pytest
import torch

from data.planning.batch import collate
from data.types import IGNORE, Batch, Example

LENGTHS = [(1,), (4,), (2, 5, 1), (3, 3), (1, 1, 1, 9)]


def rows_of(lengths: tuple[int, ...]) -> list[Example]:
    return [
        Example(ids, [IGNORE, *ids[1:]])
        for ids in (list(range(100 * row, 100 * row + n)) for row, n in enumerate(lengths))
    ]


@pytest.mark.parametrize("lengths", LENGTHS)
def test_rows_lie_between_cu_seqlens_with_positions_from_zero(lengths: tuple[int, ...]) -> None:
    examples = rows_of(lengths)
    batch = collate(examples)
    cu_seqlens = batch.cu_seqlens.tolist()
    assert len(cu_seqlens) == len(examples) + 1
    assert (cu_seqlens[0], cu_seqlens[-1]) == (0, sum(lengths))
    for row, example in enumerate(examples):
        tokens = slice(cu_seqlens[row], cu_seqlens[row + 1])
        assert batch.input_ids[0, tokens].tolist() == example.ids
        assert batch.labels[0, tokens].tolist() == example.labels
        assert batch.position_ids[0, tokens].tolist() == list(range(lengths[row]))


@pytest.mark.parametrize("lengths", LENGTHS)
def test_a_batch_has_no_padding_and_the_types_that_models_expect(lengths: tuple[int, ...]) -> None:
    batch = collate(rows_of(lengths), step_labels=7)
    for tensor in (batch.input_ids, batch.labels, batch.position_ids):
        assert tensor.shape == (1, sum(lengths))
        assert tensor.dtype == torch.int64
    assert batch.cu_seqlens.dtype == torch.int32  # as variable-length attention kernels expect
    assert (batch.lengths, batch.step_labels) == (lengths, 7)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_each_labeled_token_is_a_target_of_the_position_before_it(lengths: tuple[int, ...]) -> None:
    batch = collate(rows_of(lengths))
    labeled = batch.labels[0] != IGNORE
    assert batch.label_count == int(labeled.sum()) == sum(lengths) - len(lengths)
    assert torch.equal(batch.targets, batch.labels[0][labeled])
    assert torch.equal(batch.input_ids[0][batch.predicting + 1], batch.targets)
    assert not (batch.predicting + 1 == batch.cu_seqlens[:-1, None]).any()  # no row's first token


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_batch_moves_to_a_device_with_all_its_tensors(device: str) -> None:
    batch = collate(rows_of((2, 3)), step_labels=5)
    moved = batch.to(torch.device(device))
    assert isinstance(moved, Batch)
    for field in fields(Batch):
        old, new = getattr(batch, field.name), getattr(moved, field.name)
        if isinstance(old, torch.Tensor):
            assert new.device.type == device
            assert new.shape == old.shape
            assert device == "meta" or torch.equal(new, old)
        else:
            assert new == old
