"""The optimizer of an adapter: learning rates, weight decay, and 8-bit states."""

import pytest
import torch
from conftest import ADAPTERS, make_model
from torch import nn

from lora.config import ConfigError, LoRAConfig
from lora.injection import inject, trainable_parameters
from lora.optimizer import OPTIMIZERS, make_optimizer, parameter_groups


@pytest.mark.parametrize("kind", ADAPTERS)
def test_only_parameters_that_equal_the_base_at_zero_decay_and_only_b_learns_faster(kind):
    model = make_model(**ADAPTERS[kind].model or {})
    inject(model, LoRAConfig(**{"r": 4, "target_modules": "all-linear"} | ADAPTERS[kind].ours))
    names = {id(p): name for name, p in trainable_parameters(model).items()}
    groups = parameter_groups(model, lr=1e-3, weight_decay=0.1, loraplus_lr_ratio=4.0)
    group_of = {names[id(p)]: group for group in groups for p in group["params"]}
    assert group_of.keys() == trainable_parameters(model).keys()
    for name, group in group_of.items():
        decays = name.endswith(("lora_A", "lora_B")) and kind != "pissa"
        assert group["weight_decay"] == (0.1 if decays else 0.0), name
        assert group["lr"] == (4e-3 if name.endswith("lora_B") else 1e-3), name
    assert groups[0]["lr"] == 1e-3


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_the_loss_and_8_bit_ones_keep_8_bit_states(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1024, 8))
    inject(model, LoRAConfig(r=8, target_modules="all-linear"))
    frozen = model[0].base.weight.clone()
    optimizer = make_optimizer(model, name, lr=1e-3, weight_decay=0.0)
    x, losses = torch.randn(4, 1024), []
    for _ in range(5):
        optimizer.zero_grad()
        loss = model(x).square().sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert torch.equal(model[0].base.weight, frozen)
    # On a CPU a paged optimizer is the same one without paging.
    assert not getattr(optimizer, "is_paged", False)
    dtypes = {
        value.dtype
        for value in optimizer.state[model[0].lora_A].values()
        if isinstance(value, torch.Tensor)
    }
    assert (torch.uint8 in dtypes) == name.endswith("8bit")


def test_an_error_about_an_unknown_optimizer_lists_the_optimizers(tiny_model):
    with pytest.raises(ConfigError, match=r"^`optimizer` is 'adam'; choose adamw, adamw_8bit, "):
        make_optimizer(tiny_model, "adam", lr=1e-3, weight_decay=0.0)
