"""The LoRA layer and its settings."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lora.config import ConfigError, LoRAConfig
from lora.inject import VARIANTS
from lora.layer import LoRALinear

BASES = {
    "linear": lambda: nn.Linear(6, 10),
    "without bias": lambda: nn.Linear(6, 10, bias=False),
    "conv1d": lambda: Conv1D(10, 6),
}
over_variants = pytest.mark.parametrize("variant", VARIANTS)
over_bases = pytest.mark.parametrize("base", BASES)


def make_layer(base: str, variant: str = "lora", loud: bool = True, **settings) -> LoRALinear:
    """An adapted layer in eval mode, with a random B unless it is to be silent."""
    torch.manual_seed(0)
    layer = VARIANTS[variant](BASES[base](), LoRAConfig(r=3, variant=variant, **settings))
    if loud:
        nn.init.normal_(layer.lora_B)
    return layer.eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))


@over_variants
@over_bases
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_new_adapter_changes_no_bit(variant, base, dropout, x):
    layer = make_layer(base, variant, loud=False, lora_dropout=dropout).train()
    assert torch.equal(layer(x), layer.base(x))
    assert layer.lora_A.any()


@over_bases
def test_the_layer_computes_its_formula(base, x):
    layer = make_layer(base, lora_alpha=12, target_modules="all-linear")
    update = x @ layer.lora_A.T @ layer.lora_B.T * (12 / 3)
    assert update.abs().max() > 0.1
    torch.testing.assert_close(layer(x), layer.base(x) + update)


@pytest.mark.parametrize(
    ("r", "alpha", "use_rslora", "scale"),
    [(8, 16, False, 2.0), (8, 4.0, False, 0.5), (16, 8, True, 2.0), (8, 16, True, 16 / 8**0.5)],
)
def test_the_scale_divides_alpha_by_the_rank_or_its_root(r, alpha, use_rslora, scale, x):
    config = LoRAConfig(r=r, lora_alpha=alpha, use_rslora=use_rslora)
    layer = LoRALinear(nn.Linear(6, 10), config)
    nn.init.normal_(layer.lora_B)
    assert math.isclose(config.scale, scale)
    update = scale * x @ (layer.lora_B @ layer.lora_A).T
    torch.testing.assert_close(layer(x) - layer.base(x), update)


@over_variants
@over_bases
def test_the_merged_weight_computes_what_the_layer_does(variant, base, x):
    layer = make_layer(base, variant, lora_dropout=0.5)
    torch.testing.assert_close(F.linear(x, layer.merged(), layer.bias), layer(x))


@over_variants
@over_bases
def test_dropout_acts_in_training_only_and_on_the_update_only(variant, base, x):
    layer, plain = (make_layer(base, variant, lora_dropout=p) for p in (0.5, 0.0))
    assert torch.equal(layer(x), plain(x))
    layer.train()
    assert not torch.equal(layer(x), layer(x))
    layer.reset()
    assert torch.equal(layer(x), layer.base(x))


@over_variants
@over_bases
def test_half_precision_passes_through_while_a_and_b_stay_float32(variant, base, x):
    torch.manual_seed(0)
    layer = VARIANTS[variant](BASES[base]().bfloat16(), LoRAConfig(r=3, variant=variant))
    y = layer(x.bfloat16())
    y.float().sum().backward()
    assert y.dtype == layer.base(x.bfloat16()).dtype == torch.bfloat16
    assert layer.lora_A.dtype == layer.lora_B.dtype == layer.lora_B.grad.dtype == torch.float32


@over_variants
@over_bases
def test_gradients_reach_the_adapter_and_never_the_base(variant, base, x):
    layer = make_layer(base, variant)
    layer(x).square().sum().backward()
    moved = {name for name, p in layer.named_parameters() if p.grad is not None and p.grad.any()}
    assert {"lora_A", "lora_B"} <= moved
    assert not any(name.startswith("base.") for name in moved)
    assert all(p.grad is None and not p.requires_grad for p in layer.base.parameters())


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("r", 0),
        ("r", -4),
        ("lora_alpha", 0),
        ("lora_alpha", -1),
        ("lora_alpha", math.nan),
        ("lora_alpha", math.inf),
        ("lora_dropout", 1),
        ("lora_dropout", -0.1),
        ("lora_dropout", math.nan),
        ("target_modules", []),
        ("target_modules", ""),
        ("layers_to_transform", []),
        ("layers_to_transform", [-1]),
        ("loraplus_lr_ratio", 0),
        ("loraplus_lr_ratio", math.inf),
        ("neftune_alpha", -1),
        ("neftune_alpha", math.nan),
    ],
)
def test_a_bad_setting_is_refused_by_name(setting, value):
    with pytest.raises(ConfigError, match=rf"lora\.{setting} is "):
        LoRAConfig(**{setting: value})


@pytest.mark.parametrize(
    ("setting", "value"), [("rank_pattern", {"q_proj": 0}), ("alpha_pattern", {"q_proj": -1})]
)
def test_a_bad_pattern_is_refused_by_its_layer(setting, value):
    with pytest.raises(ConfigError, match=rf"lora\.{setting}\['q_proj'\] is "):
        LoRAConfig(**{setting: value})


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        LoRAConfig().r = 4
