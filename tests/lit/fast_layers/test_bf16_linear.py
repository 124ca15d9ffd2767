"""Products in bfloat16 of frozen layers, among layers in float32."""

from pathlib import Path

import pytest
import torch
from conftest import make_model
from torch import Tensor, nn

from lit.device.precision import Choice
from lit.fast_layers import library
from lit.fast_layers.bf16_linear import Bf16Linear
from lit.fast_layers.library import library_of, use_fast_answers
from lit.fast_layers.onednn_linear import OneDNNLinear
from lit.fast_layers.product_times import BF16, ONEDNN, TORCH
from lit.fast_layers.table import use_bf16_products, use_fast_layers
from lit.model.preparation import ModelSpec
from lora.base import dense_weight
from lora.config import ConfigError, LoRAConfig
from lora.families.linear import linear_layers
from lora.injection import eject, inject, merge

ROUNDING = 2.0**-8
"""The relative error of a number that is rounded to bfloat16."""


def frozen(exact: bool = False, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    layer = nn.Linear(64, 48, bias=bias).requires_grad_(False)
    if exact:
        layer.weight.data = layer.weight.data.bfloat16().float()
    return layer


@pytest.mark.parametrize("bias", [True, False])
def test_a_product_and_its_gradient_are_those_of_rounded_factors(bias: bool) -> None:
    layer = frozen(bias=bias)
    x = torch.randn(2, 5, 64, requires_grad=True)
    y = Bf16Linear(layer)(x)
    assert y.dtype == torch.float32
    assert not y._is_view()
    rounded = layer.weight.bfloat16().double()
    expected = x.detach().bfloat16().double() @ rounded.T
    expected += layer.bias.double() if bias else 0
    torch.testing.assert_close(y.double(), expected, atol=1e-2, rtol=ROUNDING)
    g = torch.randn_like(y)
    (gradient,) = torch.autograd.grad(y, x, g)
    assert gradient.dtype == torch.float32
    expected = g.bfloat16().double() @ rounded
    torch.testing.assert_close(gradient.double(), expected, atol=1e-2, rtol=ROUNDING)


def test_only_frozen_float32_layers_of_the_plain_class_are_replaced() -> None:
    assert Bf16Linear.replaces(frozen())
    assert Bf16Linear.replaces(frozen().to("meta"))
    assert not Bf16Linear.replaces(nn.Linear(4, 4))
    assert not Bf16Linear.replaces(frozen().to(torch.bfloat16))
    assert not Bf16Linear.replaces(Bf16Linear(frozen()))


@pytest.mark.parametrize("exact", [True, False])
def test_the_original_weight_comes_back_to_the_last_bit(exact: bool) -> None:
    layer = frozen(exact)
    fast = Bf16Linear(layer)
    assert fast.kind() is nn.Linear
    assert [p.dtype for p in fast.parameters()] == [torch.bfloat16, torch.float32]
    plain = fast.original()
    assert type(plain) is nn.Linear
    assert torch.equal(plain.weight, layer.weight)
    assert plain.weight.dtype == torch.float32
    assert plain.bias is layer.bias
    assert torch.equal(dense_weight(fast), layer.weight)


@pytest.mark.parametrize("shape", [(0, 64), (2, 0, 64), (64,)])
def test_an_input_without_rows_has_an_output_without(shape: tuple[int, ...]) -> None:
    y = Bf16Linear(frozen())(torch.randn(shape))
    assert y.shape == (*shape[:-1], 48)
    assert y.dtype == torch.float32


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "gpt_neox"])
def test_a_model_in_it_computes_nearly_the_same_and_is_put_back_exactly(family: str) -> None:
    ids = torch.arange(40).view(2, 20)
    model = make_model(family).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    inject(model, LoRAConfig(r=4))
    plain = model(ids).logits
    replaced = use_bf16_products(model)
    assert replaced >= 6
    assert library_of(model) == BF16
    use_fast_layers(model)
    fast = model(ids).logits
    assert fast.dtype == torch.float32
    assert 0 < ((fast - plain).norm() / plain.norm()).item() < 0.02
    eject(model)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("fastest", [ONEDNN, TORCH])
def test_answers_take_the_faster_library_for_the_head(
    fastest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head's products stay in float32, whichever precision the others have."""
    monkeypatch.setattr(library, "choose_library", lambda model: Choice(fastest, ""))
    model = make_model("llama").eval()
    inject(model, LoRAConfig(r=4))
    assert use_fast_answers(model, BF16) == BF16
    kinds = {type(layer) for layer in linear_layers(model).values()}
    assert kinds == {Bf16Linear}
    head = model.get_output_embeddings()
    assert type(head) is (OneDNNLinear if fastest == ONEDNN else nn.Linear)


def test_an_adapter_is_merged_into_the_exact_weights() -> None:
    def merged(fast: bool) -> dict[str, Tensor]:
        model = make_model("llama")
        inject(model, LoRAConfig(r=4))
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.1)
        if fast:
            use_fast_answers(model, BF16)
        merge(model)
        return model.state_dict()

    plain, fast = merged(False), merged(True)
    assert plain.keys() == fast.keys()
    for name, value in plain.items():
        assert torch.equal(fast[name], value), name


@pytest.mark.parametrize(("quantize", "sharded"), [("nf4", False), (None, True)])
def test_a_base_without_whole_dense_layers_is_refused(
    quantize: str | None, sharded: bool, tiny_folder: Path
) -> None:
    spec = ModelSpec(
        base=str(tiny_folder),
        revision=None,
        quantize=quantize,
        lora=LoRAConfig(r=4),
        gradient_checkpointing=False,
        fast_layers=True,
        seed=0,
        library=BF16,
    )
    with pytest.raises(ConfigError, match=r"bf16-frozen, .* set `precision` to 32-true"):
        spec.make(torch.float32, torch.device("cpu"), sharded)
