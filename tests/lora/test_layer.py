"""One adapted layer: every variant on every class of base layer."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lora.config import LoRAConfig
from lora.dropout import drop
from lora.injection import VARIANTS
from lora.layer import LoRALinear
from lora.lora_function import Recompute

BASES = {
    "linear": lambda: nn.Linear(6, 10),
    "without bias": lambda: nn.Linear(6, 10, bias=False),
    "conv1d": lambda: Conv1D(10, 6),
}
PRECISIONS = {
    "float32": (torch.float32, 1e-5),
    "bfloat16": (torch.bfloat16, 0.03),
    "autocast": (torch.float32, 0.03),
}
"""The dtype of the base and of x, and the largest relative error of a result."""
over_variants = pytest.mark.parametrize("variant", VARIANTS)
over_bases = pytest.mark.parametrize("base", BASES)


def make_layer(base: str, variant: str = "lora", new: bool = False, **settings) -> LoRALinear:
    """Return an adapted layer in eval mode; unless it is to be new, its parameters are random."""
    torch.manual_seed(0)
    layer = VARIANTS[variant](BASES[base](), LoRAConfig(r=3, variant=variant, **settings))
    if not new:
        with torch.no_grad():
            for parameter in layer.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter))
    return layer.eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))


@over_variants
@over_bases
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_new_adapter_changes_no_bit_of_the_output(variant, base, dropout, x):
    layer = make_layer(base, variant, new=True, lora_dropout=dropout).train()
    assert torch.equal(layer(x), layer.base(x))
    assert layer.lora_A.any()


@over_bases
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("use_rslora", [False, True])
def test_the_layer_computes_the_formula_of_the_paper(base, grad, use_rslora, x):
    layer = make_layer(base, lora_alpha=12, use_rslora=use_rslora)
    update = (12 / (3**0.5 if use_rslora else 3)) * x @ (layer.lora_B @ layer.lora_A).T
    assert update.abs().max() > 0.1
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(layer(x), layer.base(x) + update)


def plain_sum(
    y: Tensor,
    x: Tensor,
    A: Tensor,
    B: Tensor,
    scale: float,
    dropout: float,
    recompute: Recompute | None = None,
) -> Tensor:
    """Return what ``lean_sum`` returns, computed by plain operations of autograd."""
    return y + scale * drop(x, dropout) @ A.to(x.dtype).T @ B.to(x.dtype).T


def run(layer: LoRALinear, x: Tensor, autocast: bool) -> dict[str, Tensor]:
    """Return the output of a layer and the gradients of x and of every parameter that trains."""
    x = x.clone().requires_grad_()
    layer.zero_grad()
    torch.manual_seed(3)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = layer(x)
    weights = torch.randn(10, generator=torch.Generator().manual_seed(4))
    (y.float() * weights).square().sum().backward()
    trained = {name: p.grad for name, p in layer.named_parameters() if p.requires_grad}
    return {"y": y.detach(), "x": x.grad, **trained}


@over_variants
@over_bases
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_forward_pass_equals_its_plain_formula_in_values_and_gradients(
    variant, base, dropout, precision, x, monkeypatch
):
    dtype, tolerance = PRECISIONS[precision]
    layer = make_layer(base, variant, lora_dropout=dropout).train()
    layer.base.to(dtype)
    autocast, x = precision == "autocast", x.to(dtype)
    lean = run(layer, x, autocast)
    monkeypatch.setattr("lora.layer.lean_sum", plain_sum)
    plain = run(layer, x, autocast)
    assert {"y", "x", "lora_A", "lora_B"} <= lean.keys() == plain.keys()
    for name, value in lean.items():
        expected = plain[name]
        assert value.dtype == expected.dtype, name
        assert expected.any(), name
        error = (value.float() - expected.float()).norm() / expected.float().norm()
        assert error < tolerance, (name, error)
    assert lean["y"].dtype == (torch.bfloat16 if autocast else dtype)
    # A and B stay float32 in every precision.
    assert lean["lora_A"].dtype == lean["lora_B"].dtype == torch.float32
    assert all(p.grad is None and not p.requires_grad for p in layer.base.parameters())


@over_variants
@over_bases
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_output_is_the_same_without_gradients(variant, base, dropout, x):
    layer = make_layer(base, variant, lora_dropout=dropout).train()
    torch.manual_seed(3)
    with_gradients = layer(x).detach()
    torch.manual_seed(3)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), with_gradients)


@over_variants
@over_bases
def test_one_dense_layer_with_the_merged_weight_computes_the_same(variant, base, x):
    layer = make_layer(base, variant, lora_dropout=0.5)
    torch.testing.assert_close(F.linear(x, layer.merged_weight(), layer.bias), layer(x))
    torch.testing.assert_close(layer.folded()(x), layer(x))


@over_variants
@over_bases
def test_dropout_acts_in_training_only_and_on_the_update_only(variant, base, x):
    layer, without = (make_layer(base, variant, lora_dropout=p) for p in (0.5, 0.0))
    assert torch.equal(layer(x), without(x))
    layer.train()
    assert not torch.equal(layer(x), layer(x))
    layer.reset()
    assert torch.equal(layer(x), layer.base(x))
