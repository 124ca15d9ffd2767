"""Cross entropy at labeled positions only."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import LinearCrossEntropyOptions
from torch.utils.checkpoint import checkpoint
from transformers import PretrainedConfig, PreTrainedModel

from data.types import Batch
from lit.messages import tr
from lit.packing.decoder import head_of
from lit.packing.hidden_states import as_computed, hidden_states
from lora.config import ConfigError

CHUNK = 512
"""Positions that meet the vocabulary matrix at a time; torch's own default is 4 times slower."""
SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""What families call the cap on their logits."""
FACTORS = ("logit_scale", "lm_head_multiplier", "output_multiplier")
"""What families call the factor of their logits."""
DIVISORS = ("logits_scaling", "logits_mup_width_multiplier")
"""What Granite and Inkling call the divisor of theirs."""
MULTIPLIED = {"HyperCLOVAXForCausalLM", "HyperCLOVAXVisionV2ForConditionalGeneration"}
"""Classes that multiply by what Granite divides by."""
NOT_SCALED = {"AyaVisionForConditionalGeneration", "Cohere2VisionForConditionalGeneration"}
"""Classes with a text part whose own class would multiply its logits, and that do not."""
BEFORE_HEAD = {"ModernBertDecoderForCausalLM": "lm_head"}
"""The layers that a class calls between its decoder and its head."""
MAX_LOSS_DIFFERENCE = 0.02
"""How far this loss may be from the model's own, absolute below 1 nat and relative above."""


def summed_loss(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Return the sum of the cross entropy of every labeled token, a float32 scalar.

    Hidden states are gathered at labeled positions first; only those meet the vocabulary matrix,
    CHUNK at a time, so no (tokens, vocabulary) matrix ever exists.
    """
    return sum_at(model, *_labeled_states(model, batch))


def sum_at(model: PreTrainedModel, hidden: Tensor, targets: Tensor) -> Tensor:
    """Return the same from the hidden states (labels, hidden) that predict targets (labels,)."""
    # A sum needs less memory than a value for each position, but half precision would round it.
    reduction = "sum" if hidden.dtype == torch.float32 else "none"
    return _head_loss(model, hidden, targets, reduction).float().sum()


def token_losses(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Return the cross entropy of each labeled token in order, (labels,), float32."""
    return _head_loss(model, *_labeled_states(model, batch), reduction="none").float()


@torch.no_grad()
def check_loss(model: PreTrainedModel, batch: Batch, states: Tensor, own: Sequence[Tensor]) -> None:
    """Compare the loss with plain cross entropy over the model's own logits.

    Args:
        model: The model.
        batch: Rows that share nothing, with labels.
        states: The hidden states that training computes of them, (1, tokens, hidden).
        own: The model's own logits of each row, (tokens, vocabulary).

    Raises:
        ConfigError: The model has no output head, or they differ: this family changes its logits
            in a way that is not known here.
    """
    was_training = model.training
    model.eval()
    hidden = states[0].index_select(0, batch.predicting)
    ours = _head_loss(model, hidden, batch.targets, "none").float().mean().item()
    model.train(was_training)
    labels = torch.cat([row[1:] for row in batch.labels[0].split(batch.lengths)])
    logits = torch.cat([row[:-1] for row in own])
    plain = F.cross_entropy(logits.float(), labels).item()
    if not abs(ours - plain) <= MAX_LOSS_DIFFERENCE * max(1.0, plain):
        raise ConfigError(
            tr(
                "the loss of {type} is {plain:.4f} from its own logits and {ours:.4f} here: "
                "this model family cannot be trained yet. Choose another model.base",
                type=type(model).__name__,
                plain=plain,
                ours=ours,
            )
        )


def _labeled_states(model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the hidden states that predict a labeled token, (labels, hidden), and the tokens."""
    batch = as_computed(model, batch)
    hidden = hidden_states(model, batch)[0]
    return hidden.index_select(0, batch.predicting), batch.targets


def _head_loss(model: PreTrainedModel, hidden: Tensor, targets: Tensor, reduction: str) -> Tensor:
    head = head_of(model)
    config = model.config.get_text_config()
    if layers := BEFORE_HEAD.get(type(model).__name__):
        hidden = model.get_submodule(layers)(hidden)
    scale = _logit_scale(type(model).__name__, config)
    hidden = (hidden if scale == 1 else hidden * scale).to(head.weight.dtype)
    softcap = next(filter(None, (getattr(config, name, None) for name in SOFTCAPS)), None)
    if softcap is None:
        return F.linear_cross_entropy(
            hidden,
            head.weight,
            targets,
            linear_bias=head.bias,
            reduction=reduction,
            options=LinearCrossEntropyOptions(batch_chunk_size=CHUNK),
        )

    def capped_loss(hidden: Tensor, targets: Tensor) -> Tensor:
        logits = softcap * torch.tanh(head(hidden) / softcap)
        return F.cross_entropy(logits.float(), targets, reduction="none")

    chunks = zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True)
    return torch.cat([checkpoint(capped_loss, *chunk, use_reentrant=False) for chunk in chunks])


def _logit_scale(class_name: str, config: PretrainedConfig) -> float:
    """Return by what a class multiplies the logits of its head."""
    if class_name in NOT_SCALED:
        return 1.0
    factor, divisor = (
        next(filter(None, (getattr(config, name, None) for name in names)), 1.0)
        for names in (FACTORS, DIVISORS)
    )
    return factor * divisor if class_name in MULTIPLIED else factor / divisor
