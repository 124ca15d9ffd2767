"""Hidden states of rows that lie end to end: packed where a model is set to it, else row by row."""

from collections.abc import Sequence
from textwrap import shorten
from typing import NamedTuple
from weakref import WeakSet

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from data.planning.batch import segment_paths, separate
from data.types import Batch
from lit.messages import tr
from lit.packing.attention import PACKED, Seen, UnpackableError
from lit.packing.decoder import decoder_of
from lit.packing.recurrence import RowByRow, mixes_rows
from lit.packing.rotary import rotate_alike
from lit.packing.transformers_internals import attention_name
from lora.config import ConfigError

MAX_REASON = 160
"""Letters of an error in the line that a run prints."""
sharing: WeakSet[PreTrainedModel] = WeakSet()
"""Models that compute the shared beginnings of packed rows once; ``share`` adds them."""


class OwnResults(NamedTuple):
    """What a model computes of each of some rows by its own attention."""

    states: list[Tensor]
    """Last hidden states, (tokens, hidden) each."""
    logits: list[Tensor]
    """(tokens, vocabulary) each."""


def shares(model: PreTrainedModel) -> bool:
    """Return whether a model, as it is set now, computes shared beginnings once."""
    return model in sharing and attention_name(model) == PACKED


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


def as_computed(model: PreTrainedModel, batch: Batch) -> Batch:
    """Return a batch as a model computes it: with separate rows, if it does not share beginnings.

    The labels and their order stay; where the tokens lie may change.
    """
    if batch.paths and not (shares(model) and rotate_alike(model.config, batch.row_lengths)):
        return separate(batch)
    return batch


def hidden_states(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Return the last hidden state of every token, (1, tokens, hidden); no row sees another.

    Args:
        model: The model.
        batch: As ``as_computed`` returns it.

    Raises:
        ConfigError: The model has no part that gives hidden states.
        UnpackableError: Layers that know rows were taken off the packed model, or rows share
            beginnings and the model cannot compute them so.
    """
    if attention_name(model) != PACKED:
        if batch.paths:
            raise UnpackableError(
                tr("rows that share a beginning are computed by packed models only")
            )
        # Exact for every family, since each row is alone; slower, since matrix products are small.
        decoder, rows = decoder_of(model), batch.input_ids.split(batch.lengths, dim=1)
        return torch.cat([decoder(input_ids=row, use_cache=False)[0] for row in rows], 1)
    if layer := mixes_rows(model):
        # Adapters were taken off after packing, and these layers with them.
        raise UnpackableError(
            tr("{layer} would carry one row into the next: call pack(model) again", layer=layer)
        )
    if batch.paths or rotate_alike(model.config, batch.lengths):
        return _packed(
            *(model, batch.input_ids, batch.position_ids, batch.cu_seqlens, batch.lengths),
            _seen(batch),
        )
    ids, positions = (x.split(batch.lengths, 1) for x in (batch.input_ids, batch.position_ids))
    states = []
    for row, length in enumerate(batch.lengths):
        borders = batch.cu_seqlens[row : row + 2] - batch.cu_seqlens[row]
        states.append(_packed(model, ids[row], positions[row], borders, (length,)))
    return torch.cat(states, 1)


def _packed(
    model: PreTrainedModel,
    input_ids: Tensor,
    position_ids: Tensor,
    cu_seqlens: Tensor,
    lengths: tuple[int, ...],
    seen: Seen | None = None,
) -> Tensor:
    given = {} if seen is None else {"seen": seen}
    output = decoder_of(model)(
        input_ids=input_ids,
        position_ids=position_ids,
        row_lengths=lengths,
        cu_seq_lens_q=cu_seqlens,
        cu_seq_lens_k=cu_seqlens,
        max_length_q=max(lengths),
        max_length_k=max(lengths),
        use_cache=False,
        **given,
    )
    return output[0]


def _seen(batch: Batch) -> Seen | None:
    if batch.seen is None or batch.cu_seen is None:
        return None
    paths = segment_paths(batch.paths, len(batch.lengths))
    return Seen(tuple(paths), batch.seen, batch.cu_seen, max(batch.row_lengths))


@torch.no_grad()
def own_results(model: PreTrainedModel, rows: Sequence[Tensor]) -> OwnResults:
    """Return what a model computes of rows that lie one below the other.

    Shorter rows are filled at their end, which changes nothing in a model that does not read ahead.
    One call for all rows reads the weights once, which is most of the time of so few tokens.

    Args:
        model: Set to its own attention, in eval mode.
        rows: (tokens,) each.

    Raises:
        ConfigError: The family computes no hidden states from tokens alone.
    """
    states: list[Tensor] = []
    hook = decoder_of(model).register_forward_hook(lambda _, __, output: states.append(output[0]))
    try:
        ids = pad_sequence([*rows], batch_first=True)
        logits = model(input_ids=ids, use_cache=False).logits
        found = states.pop()
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(
            tr(
                "{type} computes no hidden states from tokens alone ({first_line}): this model "
                "family cannot be trained. Choose another model.base",
                type=type(model).__name__,
                first_line=first_line(error),
            )
        ) from error
    finally:
        hook.remove()
    lengths = [len(row) for row in rows]
    return OwnResults(
        *([row[:n] for row, n in zip(values, lengths, strict=True)] for values in (found, logits))
    )


def first_line(error: Exception) -> str:
    """Return an error's kind and the beginning of its message, as part of a line."""
    line = str(error).partition("\n")[0]
    return shorten(f"{type(error).__name__}: {line}", MAX_REASON, placeholder=" …")
