"""The logits on one text, which show whether two models compute the same."""

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data.template import continuation_ids

PROBE_TEXT = "What comes out must be what went in. Что вошло, то и вышло: 0123456789."


@torch.inference_mode()
def probe_logits(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """Return a model's logits on the probe text, (1, tokens, vocabulary), in float32."""
    ids = torch.tensor([continuation_ids(PROBE_TEXT, tokenizer)])
    return model(input_ids=ids).logits.float()


def relative_difference(logits: Tensor, reference: Tensor) -> float:
    """Return the norm of ``logits - reference``, relative to the norm of ``reference``."""
    return float((logits - reference).norm() / reference.norm())
