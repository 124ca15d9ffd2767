"""Gated MLPs that keep half: the same numbers bit for bit, from less memory."""

from collections.abc import Callable

import pytest
import torch
from conftest import FAMILIES, make_model
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from data.planning.batch import collate
from data.types import IGNORE, Example
from lit.fast_layers.table import use_fast_layers
from lit.model.loss import summed_loss
from lit.packing.pack import pack
from lit.preflight.meta_step import trace_step
from lora.config import LoRAConfig
from lora.injection import VARIANTS, inject, trainable_parameters

GATED = ["gated MLP"]
UNGATED = {"phi3", "starcoder2", "gpt2", "gpt_neox", "opt"}
"""Families whose MLP has no gate, or has it in one matrix with the up projection."""
SMOLLM2 = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
}


def step(model: nn.Module) -> list[Tensor]:
    """The loss of three rows, and the gradient of all that trains."""
    batch = collate([Example(list(range(3, n)), [IGNORE, *range(4, n)]) for n in (20, 12, 9)])
    pack(model, batch)
    model.zero_grad()
    torch.manual_seed(5)
    loss = summed_loss(model.train(), batch)
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in trainable_parameters(model).values())]


@pytest.mark.parametrize(
    ("family", "targets", "variant"),
    [
        *((family, "all-linear", "lora") for family in FAMILIES),
        *(("llama", targets, v) for targets in ("all-linear", "attention") for v in VARIANTS),
    ],
)
def test_loss_and_gradients_stay_equal_bit_for_bit(family: str, targets: str, variant: str):
    model = make_model(family)
    inject(model, LoRAConfig(r=4, lora_dropout=0.2, target_modules=targets, variant=variant))
    for name, parameter in trainable_parameters(model).items():
        if name.endswith("lora_B"):
            nn.init.normal_(parameter, std=0.1)
    before = step(model)
    use_fast_layers(model.eval(), GATED)
    assert all(torch.equal(a, b) for a, b in zip(before, step(model), strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_mlps_of_the_usual_families_are_replaced(family: str):
    model = make_model(family)
    inject(model, LoRAConfig(target_modules="all-linear"))
    (count,) = use_fast_layers(model.eval(), GATED).values()
    assert count == (0 if family in UNGATED else model.config.num_hidden_layers)


def halved(mlp: nn.Module, x: Tensor) -> Tensor:
    return mlp.down_proj(mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x)) / 2


def clamped(mlp: nn.Module, x: Tensor) -> Tensor:
    return mlp.down_proj(mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x).clamp(-10, 10))


def dropped_out(mlp: nn.Module, x: Tensor) -> Tensor:
    return mlp.down_proj(mlp.dropout(mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x)))


@pytest.mark.parametrize("forward", [halved, clamped, dropped_out])
def test_an_mlp_that_computes_something_else_is_not_replaced(forward: Callable):
    model = make_model("llama")
    mlp = model.model.layers[0].mlp
    if forward is dropped_out:
        mlp.dropout = nn.Dropout(0.1)
    mlp.__class__ = type("Other", (type(mlp),), {"forward": forward})
    inject(model, LoRAConfig())
    (count,) = use_fast_layers(model.eval(), GATED).values()
    assert count == model.config.num_hidden_layers - 1


def test_a_token_of_smollm2_keeps_less_than_a_megabyte():
    """Four rows of 590 tokens, adapters on all seven projections; PEFT keeps 3.17 MB of each."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SMOLLM2))
    inject(model, LoRAConfig(r=8, lora_dropout=0.1))
    lengths = (196, 150, 130, 114)
    kept = trace_step(model, lengths, 350, gradient_checkpointing=False).activations
    assert 0.8e6 < kept / sum(lengths) < 0.95e6
