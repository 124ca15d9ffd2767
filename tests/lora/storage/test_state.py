"""The state of an adapter in a checkpoint."""

import pytest
import torch
from conftest import ADAPTERS, make_model
from torch import Tensor, nn

from lora.config import ConfigError, LoRAConfig
from lora.injection import inject, trainable_parameters
from lora.storage.state import adapter_state, load_adapter_state

IDS = torch.arange(3, 14)[None]


def make_tuned(kind: str = "lora", seed: int = 1) -> nn.Module:
    """Return a small model with an adapter whose tensors are random."""
    model = make_model(**ADAPTERS[kind].model or {})
    inject(model, LoRAConfig(**{"r": 4, "target_modules": "all-linear"} | ADAPTERS[kind].ours))
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    return model(input_ids=IDS).logits


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_state_holds_the_tensors_that_train_and_no_base_weights(kind):
    model = make_tuned(kind)
    state = adapter_state(model)
    assert state.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    assert not any(value.requires_grad for value in state.values())
    frozen = {p.data_ptr() for p in model.parameters() if not p.requires_grad}
    assert not frozen & {value.data_ptr() for value in state.values()}


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_state_restores_the_outputs_and_keeps_the_parameters_of_the_optimizer(kind):
    model, other = make_tuned(kind), make_tuned(kind, seed=2)
    before = trainable_parameters(other)
    assert not torch.equal(logits(other), logits(model))
    load_adapter_state(other, adapter_state(model))
    assert torch.equal(logits(other), logits(model))
    after = trainable_parameters(other)
    assert all(after[name] is parameter for name, parameter in before.items())


NAME = "model.layers.1.mlp.up_proj.lora_B"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({NAME: None}, rf"{NAME} is missing in the checkpoint and \(48, 4\) in the model"),
        ({"x": torch.zeros(3)}, r"x is \(3,\) in the checkpoint and absent in the model"),
        (
            {NAME: torch.zeros(48, 8)},
            rf"{NAME} is \(48, 8\) in the checkpoint and \(48, 4\) in the model",
        ),
    ],
    ids=["a missing name", "an unknown name", "another shape"],
)
def test_a_state_of_another_adapter_is_refused_and_nothing_is_copied(changes, message):
    model = make_tuned()
    before = {name: value.clone() for name, value in adapter_state(model).items()}
    state = {**adapter_state(make_tuned(seed=2)), **changes}
    state = {name: value for name, value in state.items() if value is not None}
    with pytest.raises(ConfigError, match=message):
        load_adapter_state(model, state)
    assert all(torch.equal(value, before[name]) for name, value in adapter_state(model).items())
