"""Every model family: fast layers compute what its own layers compute, or leave them alone."""

import pytest
import torch
from torch import nn

from lit.fast_layers.table import use_fast_layers
from lora.config import LoRAConfig
from lora.injection import inject, lora_layers
from tests.families.model import make_family
from tests.families.table import FAMILIES, FAST

TUPLES = ("phimoe", "llama4_text")
"""Families whose router is a linear layer that returns more than one tensor."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(x, marks=() if x in FAST else pytest.mark.families) for x in FAMILIES],
)
def test_fast_layers_change_no_logits_and_no_gradients(name: str):
    results = []
    for fast in (False, True):
        model = make_family(name)
        torch.manual_seed(0)
        if name not in TUPLES:
            inject(model, LoRAConfig(r=4, target_modules="all-linear"))
        for _, layer in lora_layers(model):
            nn.init.normal_(layer.lora_B, std=0.1)
        if fast:
            use_fast_layers(model)
        logits = model(input_ids=torch.arange(3, 20)[None], use_cache=False).logits
        logits.float().square().mean().backward()
        results.append((logits, [layer.lora_B.grad for _, layer in lora_layers(model)]))
    (plain, expected), (logits, found) = results
    assert (logits - plain).norm() < 1e-4 * plain.norm()
    for ours, theirs in zip(found, expected, strict=True):
        # Experts that no token was sent to have none.
        assert (ours is None) == (theirs is None)
        if theirs is not None:
            assert (ours - theirs).norm() <= 1e-3 * theirs.norm() + 1e-6
