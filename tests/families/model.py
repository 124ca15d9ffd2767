"""Small models with weights as large as trained ones have."""

from copy import deepcopy

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tests.families.table import FAMILIES

LOGITS = 3.0
"""The standard deviation of the logits; those of trained models are 2 to 5."""
PROBE = 24


@torch.no_grad()
def enlarge(model: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """Give a model random weights as large as trained ones, in place.

    transformers draws weights so small that a layer adds a thousandth to its input, and hardly
    anything that a layer does wrong is seen. Here each product keeps the size of its input, norms
    and biases differ from layer to layer, and the head is scaled to logits of a real model.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 1 or name.rpartition(".")[2] in ("A_log", "A"):
            parameter += 0.1 * noise  # norms, biases, and the decay of a recurrence
        else:
            parameter.copy_(noise / parameter.shape[-1] ** 0.5)
    head = model.get_output_embeddings()
    for _ in range(3):  # a head that is tied to the embeddings changes the hidden states too
        ids = torch.arange(3, 3 + PROBE)[None]
        head.weight *= LOGITS / model(input_ids=ids, use_cache=False).logits.float().std()
    return model


def make(model_type: str, changes: dict[str, object]) -> PreTrainedModel:
    """A model of a type, in eval mode, the same at each call."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **deepcopy(changes))
    model: nn.Module = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return enlarge(model.eval())


def make_family(name: str) -> PreTrainedModel:
    """The small model of a line of the table."""
    family = FAMILIES[name]
    return make(family.model_type or name, family.changes)
