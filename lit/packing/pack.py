"""Set a model to packed attention, if it is right for its family, and back."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PreTrainedModel

from data.planning.batch import separate
from data.types import Batch
from lit.messages import tr
from lit.packing.attention import PACKED, UnpackableError
from lit.packing.hidden_states import (
    OwnResults,
    first_line,
    hidden_states,
    never_shares,
    own_results,
    sharing,
)
from lit.packing.isolation import rows_are_isolated
from lit.packing.probe import probe_batch, rows_of, shared_probe
from lit.packing.reach import check_reach
from lit.packing.recurrence import has_kernels, join_rows, separate_rows
from lit.packing.rounding import difference, rounded_alone, tolerance
from lit.packing.transformers_internals import attention_name, has_attention_interface

_own: WeakKeyDictionary[PreTrainedModel, str] = WeakKeyDictionary()
"""The attention that packed models were loaded with; not every family can use every other."""


class Packing(NamedTuple):
    """What came of comparing a model's packed attention with its own."""

    reason: str | None
    """None for a packed model; otherwise why not, for the person to read."""
    states: Tensor | None
    """The hidden states of the rows that were compared, of a packed model: (1, tokens, hidden)."""
    own: OwnResults
    """What the model's own attention computes of these rows, and then of others."""


def pack(model: PreTrainedModel, batch: Batch | None = None) -> str | None:
    """Set a model to packed attention if it then computes what it computes row by row.

    Args:
        model: With or without adapters; set to packed attention, or left as it is.
        batch: Three rows or more to compare on; None for a few short ones.

    Returns:
        None for a packed model; otherwise the reason why not, for the person to read.

    Raises:
        ConfigError: The family computes no hidden states from tokens alone.
    """
    batch = probe_batch(model.config, model.device) if batch is None else batch
    return compare_packed(model, batch).reason


@torch.no_grad()
def compare_packed(model: PreTrainedModel, batch: Batch, others: Sequence[Tensor] = ()) -> Packing:
    """Do what ``pack`` does, and return what was computed for it.

    Args:
        model, batch: As in ``pack``.
        others: More rows to compute by the model's own attention, (tokens,) each.

    Raises:
        ConfigError: The family computes no hidden states from tokens alone.
    """
    was_training, before = model.training, attention_name(model)
    if before != PACKED:
        _own[model] = before
    model.eval()
    reason, packed = "", None
    try:
        with rounded_alone(model):
            with unpacked(model):
                own = own_results(model, [*rows_of(batch), *others])
            by_row = torch.cat(own.states[: len(batch.lengths)])[None]
            ways = [True, False] if has_kernels(model, batch.input_ids.device) else [False]
            for by_kernel in ways:
                reason, packed = _packed_states(model, batch, by_row, by_kernel)
                if packed is not None:
                    break
    finally:
        if packed is None:
            _set_attention(model, _own.get(model, before))
        model.train(was_training)
    return Packing(reason or None, packed, own)


@torch.no_grad()
def share(model: PreTrainedModel, alone: Tensor | None = None) -> str | None:
    """Let a packed model compute beginnings that rows share once, if that is right for its family.

    Args:
        model: Packed or not; a model that is not packed shares nothing.
        alone: The hidden states of the separate rows of ``shared_probe``, (1, tokens, hidden), if
            they are known.

    Returns:
        None for a model that shares; otherwise the reason why not, for the person to read.
    """
    sharing.discard(model)
    reason = _reason_not_to_share(model, alone)
    if reason is None:
        sharing.add(model)
    return reason


def _reason_not_to_share(model: PreTrainedModel, alone: Tensor | None) -> str | None:
    name, was_training = type(model).__name__, model.training
    batch = shared_probe(model.config, model.device)
    if reason := never_shares(model, batch.row_lengths):
        return reason
    model.eval()
    try:
        with rounded_alone(model):
            apart = separate(batch)
            alone = hidden_states(model, apart) if alone is None else alone
            shared = hidden_states(model, batch)
            parts = shared.split(batch.lengths, 1)
            rows = torch.cat([parts[segment] for path in batch.paths for segment in path], 1)
            change = difference(alone, rows, apart.lengths)
            if not change <= tolerance(model, shared):
                return tr("rows of {name} would change by {change:.2%}", name=name, change=change)
            if not rows_are_isolated(model, batch, shared):
                return tr("rows of {name} would see each other", name=name)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    # As in ``_reason``: the family does not know segments.
    except Exception as error:
        return tr("{name} fails ({error})", name=name, error=first_line(error))
    finally:
        model.train(was_training)
    return None


def one_by_one(reason: str) -> str:
    """Return what to tell a person about a model that is not packed."""
    return tr(
        "{reason}: rows are computed one by one, which is slower and gives the same result",
        reason=reason,
    )


@contextmanager
def restored_attention(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """Yield the model, and set it back at the end to the attention that it has now."""
    before = attention_name(model)
    try:
        yield model
    finally:
        _set_attention(model, before)


@contextmanager
def unpacked(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """Yield the model with transformers' own attention."""
    with restored_attention(model):
        if attention_name(model) == PACKED:
            model.set_attn_implementation(_own.get(model, "sdpa"))
        yield model


def use_packed(model: PreTrainedModel, by_kernel: bool = False) -> None:
    """Set a model to packed attention and recurrences that know rows, right for it or not."""
    separate_rows(model, by_kernel)
    model.set_attn_implementation(PACKED)


def _set_attention(model: PreTrainedModel, name: str) -> None:
    if name != PACKED:
        join_rows(model)
    model.set_attn_implementation(name)


def _packed_states(
    model: PreTrainedModel, batch: Batch, by_row: Tensor, by_kernel: bool
) -> tuple[str, Tensor | None]:
    """Return why a model is not packed, or what it computes packed."""
    name = type(model).__name__
    if not has_attention_interface(model):
        return tr("{name} has an attention of its own, which cannot be packed", name=name), None
    try:
        check_reach(model, batch.input_ids[:, : batch.lengths[0]])
        use_packed(model, by_kernel)
        packed = hidden_states(model, batch)
        change = difference(by_row, packed, batch.lengths)
        if isfinite(change) and not rows_are_isolated(model, batch, packed):
            return tr("{name} cannot be packed: its rows would see each other", name=name), None
        if not change <= tolerance(model, packed):
            text = tr(
                "{name} cannot be packed: its rows would change by {change:.2%}",
                name=name,
                change=change,
            )
            return text, None
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except UnpackableError as error:
        return tr("{name} cannot be packed: {error}", name=name, error=error), None
    # Any error of a family's own code means that it does not know rows that lie end to end.
    except Exception as error:
        line = first_line(error)
        return tr("{name} cannot be packed ({first_line})", name=name, first_line=line), None
    return "", packed
