"""Root mean square norms in one step of autograd: the same numbers to rounding, less kept."""

from typing import Any

import pytest
import torch
from conftest import make_model
from torch import nn

from lit.fast_layers.fused_norm import FusedRMSNorm, RMSNormFunction
from lit.fast_layers.table import use_fast_layers

NORMS = {"llama": 5, "qwen2": 5, "qwen3": 9, "olmo2": 9, "mistral": 5, "gemma3_text": 0, "opt": 0}
"""Replaced norms of a family's two layers; Gemma adds one to the weight, OPT subtracts the mean."""


def llama_norm() -> Any:
    norm = make_model("llama").model.norm.requires_grad_(False)
    norm.weight.data.uniform_(0.5, 1.5)
    return norm


def test_the_gradient_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: RMSNormFunction.apply(x, weight, 1e-3), (x,))


@pytest.mark.parametrize("family", NORMS)
def test_norms_of_a_known_formula_are_replaced(family: str) -> None:
    model = make_model(family).requires_grad_(False)
    assert use_fast_layers(model, ["RMS norm"]) == {"RMS norm": NORMS[family]}


def test_less_is_kept_for_the_backward_pass() -> None:
    kept = []
    for norm in (llama_norm(), FusedRMSNorm(llama_norm())):
        width = norm.weight.numel()
        x = torch.randn(4, width, requires_grad=True) * 1
        saved: dict[int, int] = {}

        def note(tensor: torch.Tensor, saved: dict[int, int] = saved) -> torch.Tensor:
            saved[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            norm(x)
        kept.append(sum(saved.values()))
    assert kept[1] <= kept[0]
    assert kept[1] == 4 * width + width + 4


def test_only_frozen_float32_norms_are_replaced() -> None:
    assert FusedRMSNorm.replaces(llama_norm())
    assert not FusedRMSNorm.replaces(llama_norm().requires_grad_(True))
    assert not FusedRMSNorm.replaces(llama_norm().to(torch.bfloat16))
    assert not FusedRMSNorm.replaces(nn.LayerNorm(4).requires_grad_(False))


def test_elsewhere_the_original_formula_is_computed() -> None:
    plain, norm = llama_norm(), FusedRMSNorm(llama_norm())
    norm.weight.data.copy_(plain.weight)
    half = torch.randn(2, norm.weight.numel(), dtype=torch.bfloat16)
    torch.testing.assert_close(norm(half), plain(half))
    x = torch.randn(3, norm.weight.numel(), requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert type(norm(x).grad_fn).__name__ != "RMSNormFunctionBackward"
    assert type(norm(x).grad_fn).__name__ == "RMSNormFunctionBackward"
    norm.weight.requires_grad_()
    norm(x).sum().backward()
    assert norm.weight.grad is not None
    assert norm.to("meta")(x.to("meta")).is_meta
