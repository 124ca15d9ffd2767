"""The checks before training, each by itself on any rows."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from data.types import Batch
from lit.model import loss, start_checks
from lit.packing.hidden_states import OwnResults, hidden_states, own_results
from lit.packing.pack import unpacked
from lit.packing.probe import rows_of, with_another_end
from lit.packing.rounding import rounded_alone


def own_results_of(model: PreTrainedModel, rows: list[Tensor]) -> OwnResults:
    """Return what a model computes of rows by its own attention, in eval mode."""
    was_training = model.training
    model.eval()
    with unpacked(model), rounded_alone(model):
        results = own_results(model, rows)
    model.train(was_training)
    return results


@torch.no_grad()
def check_loss(model: PreTrainedModel, batch: Batch) -> None:
    """Compare the loss of a batch with that of the model's own logits."""
    own = [own_results_of(model, [row]).logits[0] for row in rows_of(batch)]
    was_training = model.training
    states = hidden_states(model.eval(), batch)
    loss.check_loss(model.train(was_training), batch, states, own)


def check_causal(model: PreTrainedModel, input_ids: Tensor) -> None:
    """Check that the last token of a row, (1, tokens), changes nothing before it."""
    row = input_ids[0]
    states = own_results_of(model, [row, with_another_end(row)]).states
    start_checks.check_causal(model, *states)
