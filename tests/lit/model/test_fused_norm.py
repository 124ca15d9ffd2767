"""Norms in one step of autograd: the same numbers to rounding, and only where they are known."""

import pytest
import torch
from conftest import make_model
from torch import nn

from data.planning.batch import collate
from data.types import Example
from lit.model.attention import pack
from lit.model.fused_norm import Norm, fuse
from lit.model.loss import summed_loss
from lora.config import LoRAConfig
from lora.inject import inject, trainable_parameters

NORMS = {"llama": 5, "qwen2": 5, "qwen3": 9, "mistral": 5, "gemma3_text": 0, "opt": 0}
"""How many norms of a family's two layers are changed: Gemma's weight is short of one by one."""


def test_gradient_is_the_one_of_finite_differences() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: Norm.apply(x, weight, 1e-3), (x,))


@pytest.mark.parametrize("family", NORMS)
def test_a_models_loss_and_gradients_stay(family: str) -> None:
    model = make_model(family)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data.uniform_(0.5, 1.5)
    inject(model, LoRAConfig(target_modules="all-linear"))
    batch = collate([Example(list(range(3, n)), list(range(3, n))) for n in (20, 12)])
    pack(model, batch)
    found = []
    for count in (None, NORMS[family]):
        assert count is None or fuse(model) == count
        model.zero_grad()
        loss = summed_loss(model, batch)
        loss.backward()
        found.append(
            torch.cat(
                [loss.view(1), *(p.grad.flatten() for p in trainable_parameters(model).values())]
            )
        )
    assert (found[0] - found[1]).norm() <= 1e-5 * found[0].norm()


def test_less_is_kept_for_the_backward_pass() -> None:
    kept: list[int] = []
    for change in (lambda model: 0, fuse):
        model = nn.Sequential(make_model("llama").model.norm).requires_grad_(False)
        change(model)
        width = model[0].weight.numel()
        x = torch.randn(4, width, requires_grad=True) * 1
        held: dict[int, int] = {}

        def note(tensor: torch.Tensor, held: dict[int, int] = held) -> torch.Tensor:
            held[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            model(x)
        kept.append(sum(held.values()))
    assert kept[1] <= kept[0]
    assert kept[1] == 4 * width + width + 4


def test_what_trains_or_is_of_another_dtype_is_left_alone() -> None:
    norm = make_model("llama").model.norm
    assert fuse(norm) == 0
    assert fuse(norm.requires_grad_(False).to(torch.bfloat16)) == 0
    norm = norm.float()
    assert fuse(norm) == 1
    assert norm(torch.ones(2, norm.weight.numel(), dtype=torch.bfloat16)).dtype == torch.float32
    x = torch.randn(3, norm.weight.numel(), requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert type(norm(x).grad_fn).__name__ != "NormBackward"
    assert type(norm(x).grad_fn).__name__ == "NormBackward"
    norm.weight.requires_grad_()
    norm(x).sum().backward()
    assert norm.weight.grad is not None
    assert norm.to("meta")(x.to("meta")).is_meta
