"""What is checked of an adapted model before it trains, on a few tokens."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from data.planning.batch import collate, separate
from data.types import Batch
from lit.messages import tr
from lit.model.architecture import TAKE, describe_compression
from lit.model.loss import check_loss
from lit.model.silent_layers import check_reached
from lit.packing.hidden_states import hidden_states, own_results
from lit.packing.pack import compare_packed, one_by_one
from lit.packing.probe import (
    probe_batch,
    probe_examples,
    rows_of,
    shared_probe,
    with_another_end,
)
from lit.packing.rotary import rotary_limit
from lit.run.console import print_rank0
from lora.config import ConfigError

MAX_CHANGE, MAX_CHANGE_HALF = 1e-3, 0.02
"""Relative changes of hidden states that rounding may cause in float32 and in half precision.

Where tokens choose experts, another token changes which ones are computed together.
"""


def check_model(
    call: Callable[..., Any],
    config: PretrainedConfig,
    device: torch.device,
    must_pack: str | None,
    longest_row: int | None,
) -> Tensor:
    """Use packed attention where it is right for a model, and check its loss.

    Args:
        call: Calls a function with the model and further arguments.
        config: The model's config.
        device: The model's device.
        must_pack: A strategy that cannot train models without packed attention, or None.
        longest_row: Tokens of the longest row, or None if it is not known.

    Returns:
        What ``share`` needs to know: the hidden states of the separate rows of its probe.

    Raises:
        ConfigError: The model reads ahead, the loss differs from the model's own, packing is needed
            and impossible, or an adapter is never called.
    """
    limit = rotary_limit(config)
    if must_pack and limit is not None and not (longest_row and longest_row <= limit):
        raise ConfigError(
            tr(
                "the rotary positions of {model_type} are others in rows above {limit:,} "
                "tokens, and trainer.strategy {must_pack} cannot train such rows together with "
                "shorter ones: set data.max_length to {limit} or less, or trainer.strategy to "
                "ddp",
                model_type=config.model_type,
                limit=limit,
                must_pack=must_pack,
            )
        )
    batch, shared = probe_batch(config, device), separate(shared_probe(config, device))
    first, *_ = rows_of(batch)
    others = [with_another_end(first), *rows_of(shared)]
    reason, packed, own = call(compare_packed, batch, others)
    states, (changed, *alone) = own.states[0], own.states[len(batch.lengths) :]
    call(check_causal, states, changed)
    if reason:
        if must_pack:
            # Ranks have different numbers of rows and must gather weights equally often.
            raise ConfigError(
                tr(
                    "{reason}: trainer.strategy {must_pack} cannot train this model",
                    reason=reason,
                    must_pack=must_pack,
                )
            )
        print_rank0(tr("model  {reason}", reason=one_by_one(reason)))
    short = collate(probe_examples(config.get_text_config().vocab_size)[:1]).to(device)
    if packed is None:
        # Some families that are not packed compute a row otherwise where others are longer.
        computed, logits = call(_alone, short)
    else:
        computed, logits = packed[:, : len(first)], own.logits[:1]
    call(check_loss, short, computed, logits)
    call(check_reached, short)
    if note := describe_compression(config, longest_row):
        print_rank0(tr("model  {note}", note=note), note=True)
    return torch.cat(alone)[None]


@torch.no_grad()
def _alone(model: PreTrainedModel, batch: Batch) -> tuple[Tensor, list[Tensor]]:
    """Return the hidden states and the logits of a batch of one row by a model not packed."""
    was_training = model.training
    states = hidden_states(model.eval(), batch)
    logits = own_results(model, rows_of(batch)).logits
    model.train(was_training)
    return states, logits


def check_causal(model: PreTrainedModel, before: Tensor, after: Tensor) -> None:
    """Check that a token changes nothing before it.

    Args:
        model: With or without adapters.
        before: The hidden states of a row of at least two tokens, (tokens, hidden).
        after: Those of the same row with another last token.

    Raises:
        ConfigError: The last token changes the hidden states of tokens before it, or these are not
            finite.
    """
    before, after = (states[:-1].float() for states in (before, after))
    allowed = MAX_CHANGE if model.dtype == torch.float32 else MAX_CHANGE_HALF
    if not before.isfinite().all():
        raise ConfigError(
            tr(
                "{type} computes NaN or infinity from a few tokens: a weight is not finite, or "
                "its numbers are too large for float16. If trainer.precision is 16-mixed, set "
                "it to bf16-mixed or 32-true; otherwise download the model again",
                type=type(model).__name__,
            )
        )
    if not (before - after).norm() <= allowed * before.norm():
        raise ConfigError(
            tr(
                "{type} reads a text in both directions, so it would see the answers that it "
                "should learn. {take}",
                type=type(model).__name__,
                take=tr(TAKE),
            )
        )
