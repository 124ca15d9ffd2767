"""Whether a row changes the hidden states of its neighbors."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from data.types import Batch
from lit.packing.hidden_states import hidden_states
from lit.packing.rounding import difference, tolerance


@torch.no_grad()
def rows_are_isolated(model: PreTrainedModel, batch: Batch, states: Tensor) -> bool:
    """Return whether a row between two others changes neither of them.

    The other rows must be equal bit by bit when one row takes tokens of theirs: however small a
    leak is, it is no rounding, because each product has the same shape as before. Only experts
    multiply as many tokens as were sent to them, and products of another shape round differently.
    So, where bits differ by no more than rounding, the row's embeddings become NaN: rounding stays
    rounding, and attention, a convolution or a state that takes anything from this row becomes NaN.

    Args:
        model: Set to the attention that is checked, in eval mode.
        batch: At least three rows.
        states: Their hidden states, (1, tokens, hidden).
    """
    row = len(batch.row_lengths) // 2
    # Its own rest, where it shares a beginning.
    segment = batch.paths[row][-1] if batch.paths else row
    first, last = sum(batch.lengths[:segment]), sum(batch.lengths[: segment + 1])
    ids = batch.input_ids.clone()
    ids[:, first:last] = ids.roll(ids.shape[1] // 2, 1)[:, first:last]
    after = hidden_states(model, replace(batch, input_ids=ids))
    others, changed = _others(states, first, last), _others(after, first, last)
    if torch.equal(others, changed):
        return True
    if not difference(others, changed, (others.shape[1],)) <= tolerance(model, states):
        return False
    with _not_a_number(model.get_input_embeddings(), first, last):
        tainted = hidden_states(model, batch)
    return not _others(tainted, first, last).isnan().any()


def _others(states: Tensor, first: int, last: int) -> Tensor:
    return torch.cat([states[:, :first], states[:, last:]], 1)


@contextmanager
def _not_a_number(embedding: nn.Module, first: int, last: int) -> Iterator[None]:
    """Make the embeddings of the tokens from first to last NaN in a ``with`` block."""

    def spoil(embedding: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
        spoiled = output.clone()
        spoiled[:, first:last] = torch.nan
        return spoiled

    handle = embedding.register_forward_hook(spoil)
    try:
        yield
    finally:
        handle.remove()
