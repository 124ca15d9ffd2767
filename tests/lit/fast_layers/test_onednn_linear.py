"""Frozen linear layers by oneDNN: torch's numbers to rounding."""

import pytest
import torch
from torch import nn

from lit.fast_layers.onednn_linear import OneDNNLinear


def frozen(width: int = 8, height: int = 8, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(width, height, bias=bias).requires_grad_(False)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(5, 24), (2, 7, 24), (1, 24)])
def test_output_and_gradient_are_those_of_torch(shape: tuple[int, ...], bias: bool) -> None:
    layer = frozen(24, 40, bias)
    x = torch.randn(shape, requires_grad=True)
    weights = torch.randn(*shape[:-1], 40)
    plain = layer(x)
    (expected,) = torch.autograd.grad((plain * weights).sum(), x)
    assert OneDNNLinear.replaces(layer)
    fast = OneDNNLinear(layer)(x)
    assert type(fast.grad_fn).__name__ == "OneDNNFunctionBackward"
    torch.testing.assert_close(fast, plain, atol=1e-6, rtol=1e-6)
    (gradient,) = torch.autograd.grad((fast * weights).sum(), x)
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-6)


def test_only_frozen_float32_layers_of_the_plain_class_are_replaced() -> None:
    assert OneDNNLinear.replaces(frozen())
    assert not OneDNNLinear.replaces(nn.Linear(4, 4))
    assert not OneDNNLinear.replaces(frozen().to(torch.bfloat16))
    assert not OneDNNLinear.replaces(frozen().to("meta"))
    assert not OneDNNLinear.replaces(OneDNNLinear(frozen()))
    hooked = frozen()
    hooked.register_forward_hook(lambda *args: None)
    assert not OneDNNLinear.replaces(hooked)


def test_torch_computes_where_there_is_no_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not OneDNNLinear.replaces(frozen())


def test_the_original_has_the_same_parameters() -> None:
    layer = frozen()
    plain = OneDNNLinear(layer).original()
    assert type(plain) is nn.Linear
    assert plain.weight is layer.weight
    assert plain.bias is layer.bias


def test_autocast_chooses_the_dtype_and_an_empty_input_has_an_empty_output() -> None:
    layer = OneDNNLinear(frozen())
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(3, 8)).dtype == torch.bfloat16
    assert layer(torch.randn(0, 8)).shape == (0, 8)


def test_a_weight_that_trains_later_gets_its_gradient() -> None:
    layer = OneDNNLinear(frozen())
    layer.weight.requires_grad_()
    layer(torch.randn(3, 8)).sum().backward()
    assert layer.weight.grad is not None


def test_a_layer_that_moves_to_another_device_computes_there() -> None:
    y = OneDNNLinear(frozen(8, 6)).to("meta")(torch.randn(3, 8, device="meta"))
    assert y.is_meta
    assert y.shape == (3, 6)
