"""What a model answers to one text: the proof that two of them are the same."""

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data.template import continuation_ids

TEXT = "What comes out must be what went in. Что вошло, то и вышло: 0123456789."


@torch.inference_mode()
def probe(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """A model's logits on the text, (1, tokens, vocabulary), in float32."""
    return model(input_ids=torch.tensor([continuation_ids(TEXT, tokenizer)])).logits.float()


def distance(logits: Tensor, wanted: Tensor) -> float:
    """How far logits are from others, as a share of the others' size."""
    return float((logits - wanted).norm() / wanted.norm())
