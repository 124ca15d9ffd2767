"""Which questions may be answered in one batch: those whose answers are the same as alone."""

from collections.abc import Sequence
from copy import copy
from math import isfinite
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel

from lit.answering.sampling import Sampling
from lit.messages import tr
from lit.packing.rotary import rotary_limit
from lit.packing.rounding import difference, tolerance
from lit.run.console import print_rank0

PROBE = (5, 9)
"""Tokens of two questions; the first is padded."""
STEPS = 2
"""Tokens that are generated: one from the questions, one from the cache."""
_reasons: WeakKeyDictionary[PreTrainedModel, str | None] = WeakKeyDictionary()
"""Why a model cannot answer in batches, for each model that was asked."""


def split_batches(
    model: PreTrainedModel,
    lengths: Sequence[int],
    batch_size: int,
    max_new_tokens: int,
    pad: int,
) -> list[list[int]]:
    """Return the questions of each batch; in all of them the answers are the same as alone.

    Args:
        model: In eval mode. A family that does not leave out padding is told of, once.
        lengths: Tokens of each question.
        batch_size: The most questions of a batch.
        max_new_tokens: Tokens that an answer may have.
        pad: The token that fills shorter questions up.

    Returns:
        Indices in lengths, shorter questions first.
    """
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    limit = batch_limit(model.config)
    together = [i for i in order if limit is None or lengths[i] + max_new_tokens <= limit]
    if len(together) > 1 and batch_size > 1 and why_alone(model, pad) is not None:
        batch_size = 1
    batches = [together[at : at + batch_size] for at in range(0, len(together), batch_size)]
    return batches + [[index] for index in order[len(together) :]]


def batch_limit(config: PretrainedConfig) -> int | None:
    """Return the tokens above which a row's answer depends on the rows beside it, or None."""
    # Rotary frequencies depend on the longest row. A sparse attention that takes the best so many
    # tokens takes padding among them.
    limits = (rotary_limit(config), getattr(config.get_text_config(), "index_topk", None))
    return min((limit for limit in limits if limit is not None), default=None)


def can_batch(sampling: Sampling) -> bool:
    """Return whether a token chosen in a batch is nearly always the one chosen alone.

    The last tokens of a nucleus are often so close to each other that a rounding error decides
    which of them belongs to it. Half of the answers would have to be given again alone.
    """
    return sampling.temperature == 0 or sampling.top_p == 1


def why_alone(model: PreTrainedModel, pad: int) -> str | None:
    """Return why a model must answer one question at a time, or None; a reason is printed once.

    A short question is answered alone and beside a longer one. Some families see the padding before
    it, or count positions from it.
    """
    known = model in _reasons
    reason = batch_changes(model, pad)
    if reason is not None and not known:
        print_rank0(
            tr("answers  {reason}: one question is answered at a time", reason=reason), note=True
        )
    return reason


def batch_changes(model: PreTrainedModel, pad: int) -> str | None:
    """Return why a model's answers in a batch are not those alone, or None; found out once."""
    if model not in _reasons:
        _reasons[model] = _compare(model, pad)
    return _reasons[model]


def without_defaults(model: PreTrainedModel) -> PreTrainedModel:
    """Return the same model without the settings of its generation_config.json.

    transformers fills every field that a config leaves out from there: a repetition penalty, beams.
    """
    # The copy is shallow: both have the same layers. The model itself stays unchanged, as another
    # thread may use it, or save it.
    plain = copy(model)
    plain.generation_config = GenerationConfig()
    return plain


def probe_questions(model: PreTrainedModel, pad: int) -> tuple[Tensor, ...]:
    """Return the tokens of a short and of a longer question, on the model's device."""
    vocabulary = model.config.get_text_config().vocab_size
    usable = [token for token in range(vocabulary) if token != pad]
    step = max(1, len(usable) // sum(PROBE))
    return torch.tensor(usable[::step][: sum(PROBE)], device=model.device).split(PROBE)


@torch.inference_mode()
def _compare(model: PreTrainedModel, pad: int) -> str | None:
    name, (short, long) = type(model).__name__, probe_questions(model, pad)
    padding = torch.full((len(long) - len(short),), pad, device=model.device)
    batch = torch.stack([torch.cat([padding, short]), long])
    mask = torch.ones_like(batch)
    mask[0, : len(padding)] = 0
    try:
        alone = _logits(model, short[None], torch.ones_like(short)[None], pad)
        beside = _logits(model, batch, mask, pad)[:1]
    except Exception as error:
        line = str(error).partition("\n")[0]
        return tr(
            "{name} cannot answer in batches ({type}: {line})",
            name=name,
            type=type(error).__name__,
            line=line,
        )
    # After the first token that differs, the answers have no more in common.
    same = (alone[0].argmax(-1) == beside[0].argmax(-1)).long().cumprod(0)
    steps = min(STEPS, int(same.sum()) + 1)
    change = difference(alone[:, :steps], beside[:, :steps], (1,) * steps)
    # Where numbers are not finite, no answer is right, and generating stops with the reason.
    if not isfinite(change) or change <= 2 * tolerance(model, alone):
        return None
    return tr(
        "{name} answers otherwise in a batch (its logits change by {change:.1%})",
        name=name,
        change=change,
    )


def _logits(model: PreTrainedModel, ids: Tensor, mask: Tensor, pad: int) -> Tensor:
    """Return the logits of the first tokens of each answer, (rows, steps, vocabulary)."""
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=STEPS,
        pad_token_id=pad,
        output_logits=True,
        return_dict_in_generate=True,
    )
    plain = without_defaults(model)
    output = plain.generate(ids, attention_mask=mask, generation_config=config)  # type: ignore[operator]
    return torch.stack(output.logits, 1)


def pad_left(
    prompts: Sequence[Sequence[int]], pad: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return prompts of different length as tokens and attention mask, (prompts, longest).

    Padding is on the left, so that every answer starts at the same position.
    """
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids.to(device), mask.to(device)
