"""Whether a model sees only what comes before: one that reads ahead would copy its labels."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lit.messages import tr
from lit.model.architecture import TAKE
from lit.packing.decoder import decoder_of
from lit.packing.pack import unpacked
from lit.packing.rounding import rounded_alone
from lora.config import ConfigError

MAX_CHANGE, MAX_CHANGE_HALF = 1e-3, 0.02
"""Relative changes of hidden states that rounding may cause in float32 and in half precision.

Where tokens choose experts, another token changes which ones are computed together.
"""


@torch.no_grad()
def check_causal(model: PreTrainedModel, input_ids: Tensor) -> None:
    """Check that a token changes nothing before it.

    Args:
        model: With or without adapters.
        input_ids: A row of at least two tokens, (1, tokens).

    Raises:
        ConfigError: The last token changes the hidden states of tokens before it, or these are not
            finite.
    """
    was_training = model.training
    model.eval()
    changed = input_ids.clone()
    changed[0, -1] = input_ids[0, 0]
    with unpacked(model), rounded_alone(model):
        both = torch.cat([input_ids, changed])
        before, after = decoder_of(model)(input_ids=both, use_cache=False)[0][:, :-1].float()
    model.train(was_training)
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
