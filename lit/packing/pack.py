"""Set a model to packed attention, if it is right for its family, and back."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from textwrap import shorten
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from data.planning.batch import separate
from data.types import Batch
from lit.messages import tr
from lit.packing.attention import PACKED, UnpackableError
from lit.packing.decoder import decoder_of
from lit.packing.hidden_states import hidden_states, sharing
from lit.packing.isolation import rows_are_isolated
from lit.packing.probe import probe_batch, shared_probe
from lit.packing.reach import check_reach
from lit.packing.recurrence import RowByRow, has_kernels, join_rows, separate_rows
from lit.packing.rotary import rotate_alike
from lit.packing.rounding import difference, rounded_alone, tolerance
from lit.packing.transformers_internals import attention_name, has_attention_interface
from lora.config import ConfigError

MAX_REASON = 160
"""Letters of an error in the line that a run prints."""
_own: WeakKeyDictionary[PreTrainedModel, str] = WeakKeyDictionary()
"""The attention that packed models were loaded with; not every family can use every other."""


@torch.no_grad()
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
    was_training, before = model.training, attention_name(model)
    if before != PACKED:
        _own[model] = before
    model.eval()
    reason: str | None = ""
    try:
        with rounded_alone(model):
            with unpacked(model):
                by_row = _by_row(model, batch)
            ways = [True, False] if has_kernels(model, batch.input_ids.device) else [False]
            for by_kernel in ways:
                if (reason := _reason(model, batch, by_row, by_kernel)) is None:
                    break
    finally:
        if reason is not None:
            _set_attention(model, _own.get(model, before))
        model.train(was_training)
    return reason


@torch.no_grad()
def share(model: PreTrainedModel) -> str | None:
    """Let a packed model compute beginnings that rows share once, if that is right for its family.

    Args:
        model: Packed or not; a model that is not packed shares nothing.

    Returns:
        None for a model that shares; otherwise the reason why not, for the person to read.
    """
    sharing.discard(model)
    reason = _reason_not_to_share(model)
    if reason is None:
        sharing.add(model)
    return reason


def never_shares(model: PreTrainedModel, row_lengths: Sequence[int]) -> str | None:
    """Return why a model cannot share beginnings of rows, whatever it computes; None if it may."""
    name = type(model).__name__
    if attention_name(model) != PACKED:
        return tr("{name} computes rows one by one", name=name)
    if any(isinstance(module, RowByRow) for module in model.modules()):
        return tr("{name} carries something from token to token", name=name)
    if not rotate_alike(model.config, row_lengths):
        return tr("the rotary positions of {name} depend on the lengths of rows", name=name)
    return None


def _reason_not_to_share(model: PreTrainedModel) -> str | None:
    name, was_training = type(model).__name__, model.training
    batch = shared_probe(model.config, model.device)
    if reason := never_shares(model, batch.row_lengths):
        return reason
    model.eval()
    try:
        with rounded_alone(model):
            apart = separate(batch)
            alone, shared = hidden_states(model, apart), hidden_states(model, batch)
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
        return tr("{name} fails ({error})", name=name, error=_first_line(error))
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


def _by_row(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Return what a model computes of rows that lie one below the other, (1, tokens, hidden).

    Shorter rows are filled at their end, which changes nothing in a model that does not read ahead,
    and reading all weights once for all rows is a good part of the time of a small batch.

    Raises:
        ConfigError: The family computes no hidden states from tokens alone.
    """
    rows = pad_sequence([*batch.input_ids[0].split(batch.lengths)], batch_first=True)
    try:
        states = decoder_of(model)(input_ids=rows, use_cache=False)[0]
        return torch.cat([row[:n] for row, n in zip(states, batch.lengths, strict=True)])[None]
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(
            tr(
                "{type} computes no hidden states from tokens alone ({first_line}): this model "
                "family cannot be trained. Choose another model.base",
                type=type(model).__name__,
                first_line=_first_line(error),
            )
        ) from error


def _reason(model: PreTrainedModel, batch: Batch, by_row: Tensor, by_kernel: bool) -> str | None:
    name = type(model).__name__
    if not has_attention_interface(model):
        return tr("{name} has an attention of its own, which cannot be packed", name=name)
    try:
        check_reach(model, batch.input_ids[:, : batch.lengths[0]])
        use_packed(model, by_kernel)
        packed = hidden_states(model, batch)
        change = difference(by_row, packed, batch.lengths)
        if isfinite(change) and not rows_are_isolated(model, batch, packed):
            return tr("{name} cannot be packed: its rows would see each other", name=name)
        if not change <= tolerance(model, packed):
            return tr(
                "{name} cannot be packed: its rows would change by {change:.2%}",
                name=name,
                change=change,
            )
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except UnpackableError as error:
        return tr("{name} cannot be packed: {error}", name=name, error=error)
    # Any error of a family's own code means that it does not know rows that lie end to end.
    except Exception as error:
        return tr(
            "{name} cannot be packed ({first_line})", name=name, first_line=_first_line(error)
        )
    return None


def _first_line(error: Exception) -> str:
    line = str(error).partition("\n")[0]
    return shorten(f"{type(error).__name__}: {line}", MAX_REASON, placeholder=" …")
