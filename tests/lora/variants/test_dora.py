"""DoRA: the length of each row of the weight, learned apart from its direction."""

import pytest
import torch
from conftest import make_model
from torch import nn

from lora.config import LoRAConfig
from lora.injection import inject, quantize_model
from lora.variants.dora import DoRALinear


@pytest.mark.parametrize("bias", [True, False])
def test_the_gain_is_the_magnitude_divided_by_the_norm_of_each_row(bias):
    torch.manual_seed(0)
    layer = DoRALinear(nn.Linear(6, 10, bias=bias), LoRAConfig(r=3, variant="dora"))
    with torch.no_grad():
        layer.lora_B.normal_()
        layer.magnitude.normal_()
    weight = layer.base.weight + layer.config.scale * layer.lora_B @ layer.lora_A
    torch.testing.assert_close(layer.gain(), layer.magnitude / weight.norm(dim=1))
    torch.testing.assert_close(layer.merged_weight().norm(dim=1), layer.magnitude.abs())


def test_the_magnitude_starts_as_the_norm_of_each_row_of_a_quantized_weight():
    model = make_model(hidden_size=64, intermediate_size=128, head_dim=16)
    quantize_model(model, "nf4", torch.float32)
    inject(model, LoRAConfig(r=4, variant="dora"))
    layer = model.model.layers[0].mlp.up_proj
    torch.testing.assert_close(layer.magnitude, layer.merged_weight().norm(dim=1))


def test_the_norm_is_a_constant_in_the_backward_pass():
    layer = DoRALinear(nn.Linear(6, 10), LoRAConfig(r=3, variant="dora"))
    layer.gain().sum().backward()
    assert layer.magnitude.grad.all()
    assert layer.lora_A.grad is None
    assert layer.lora_B.grad is None


def test_a_row_of_zeros_keeps_outputs_and_gradients_finite():
    base = nn.Linear(6, 10)
    nn.init.zeros_(base.weight)
    layer, x = DoRALinear(base, LoRAConfig(r=2)), torch.randn(3, 6)
    y = layer(x)
    y.sum().backward()
    assert torch.equal(y, base(x))
    assert all(p.grad.isfinite().all() for p in layer.parameters() if p.requires_grad)


@pytest.mark.parametrize("bias", [True, False])
def test_the_output_in_autocast_has_the_dtype_of_the_base(bias):
    base = nn.Linear(6, 10, bias=bias)
    layer, x = DoRALinear(base, LoRAConfig(r=2)), torch.randn(3, 6)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == base(x).dtype == torch.bfloat16
