"""Frozen layers by the other library: the same numbers to rounding, and only where it may be."""

from pathlib import Path

import pytest
import torch
from conftest import make_model
from torch import nn

import lit.model.onednn_linear
from data.planning.batch import collate
from data.types import Example
from lit.model.attention import pack
from lit.model.loss import summed_loss
from lit.model.onednn_linear import hasten
from lora.config import LoRAConfig
from lora.inject import inject, trainable_parameters


@pytest.fixture(autouse=True)
def on_amd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The maker of the CPU, as Linux would tell."""
    path = tmp_path / "cpuinfo"
    path.write_text("vendor_id\t: AuthenticAMD\n")
    monkeypatch.setattr(lit.model.onednn_linear, "CPUS", path)
    return path


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(5, 24), (2, 7, 24), (1, 24)])
def test_layer_and_gradient_are_those_of_torch(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(24, 40, bias=bias).requires_grad_(False)
    x = torch.randn(shape, requires_grad=True)
    weights = torch.randn(*shape[:-1], 40)
    plain = layer(x)
    (of_x,) = torch.autograd.grad((plain * weights).sum(), x)
    assert hasten(layer) == 1
    ours = layer(x)
    assert type(ours.grad_fn).__name__ == "FrozenProductBackward"
    torch.testing.assert_close(ours, plain, atol=1e-6, rtol=1e-6)
    (again,) = torch.autograd.grad((ours * weights).sum(), x)
    torch.testing.assert_close(again, of_x, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3_text", "opt"])
def test_a_models_loss_and_gradients_stay(family: str) -> None:
    model = make_model(family)
    inject(model, LoRAConfig(target_modules="all-linear"))
    batch = collate([Example(list(range(3, n)), list(range(3, n))) for n in (20, 12)])
    pack(model, batch)
    found = []
    for change in (lambda model: None, hasten):
        change(model)
        model.zero_grad()
        summed_loss(model, batch).backward()
        found.append(torch.cat([p.grad.flatten() for p in trainable_parameters(model).values()]))
    assert (found[0] - found[1]).norm() < 1e-5 * found[0].norm()


def test_a_layer_that_trains_in_full_keeps_its_gradient() -> None:
    """gemma2 caps its logits, so that its loss calls the head, where others read its weight."""
    gradients = []
    for change in (lambda model: None, hasten):
        model = make_model("gemma2", tie_word_embeddings=False)
        inject(model, LoRAConfig(modules_to_save=["lm_head", "down_proj"]))
        change(model)
        batch = collate([Example(list(range(3, 20)), list(range(3, 20)))])
        pack(model, batch)
        summed_loss(model, batch).backward()
        gradients.append({name: p.grad for name, p in trainable_parameters(model).items()})
    plain, ours = gradients
    assert any("lm_head" in name for name in plain)
    for name, value in plain.items():
        assert (ours[name] - value).norm() <= 1e-5 * value.norm(), name


def test_what_trains_and_what_is_not_float32_is_left_alone() -> None:
    frozen = nn.Linear(4, 4).requires_grad_(False)
    assert hasten(nn.Sequential(nn.Linear(4, 4), frozen.to(torch.bfloat16))) == 0


def test_another_makers_cpu_is_left_to_torch(on_amd: Path) -> None:
    on_amd.write_text("vendor_id\t: GenuineIntel\n")
    assert hasten(nn.Linear(4, 4).requires_grad_(False)) == 0


def test_autocast_still_chooses_the_dtype() -> None:
    layer = nn.Linear(8, 8).requires_grad_(False)
    hasten(layer)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(3, 8)).dtype == torch.bfloat16
    assert layer(torch.randn(0, 8)).shape == (0, 8)


def test_a_layer_that_is_moved_to_another_device_computes_there() -> None:
    layer = nn.Linear(8, 6).requires_grad_(False)
    assert hasten(layer) == 1
    y = layer.to("meta")(torch.randn(3, 8, device="meta"))
    assert y.is_meta
    assert y.shape == (3, 6)
