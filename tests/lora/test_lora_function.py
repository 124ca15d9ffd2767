"""The LoRA formula as one autograd function: gradients, dropout, and the tensors that it keeps."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from lora.config import LoRAConfig
from lora.dropout import drop
from lora.layer import LoRALinear
from lora.lora_function import LoRAFunction, Recompute, lean_sum

SCALE = 1.5
over_dropout = pytest.mark.parametrize("dropout", [0.0, 0.3])


def make_inputs() -> list[Tensor]:
    """Return y (2, 7, 10), x (2, 7, 6), A (3, 6) and B (10, 3), all with gradients."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in ((2, 7, 10), (2, 7, 6), (3, 6), (10, 3))
    ]


def plain_sum(y: Tensor, x: Tensor, A: Tensor, B: Tensor, dropout: float) -> Tensor:
    return y + SCALE * drop(x, dropout) @ A.T @ B.T


@pytest.mark.parametrize("hashed", [(), ("cpu",)])
@over_dropout
def test_the_sum_and_its_gradients_are_those_of_autograd_with_the_same_mask(
    dropout, hashed, monkeypatch
):
    monkeypatch.setattr("lora.dropout.HASHED_ON", hashed)
    results = []
    for function in (LoRAFunction.apply, plain_sum):
        y, x, A, B = inputs = make_inputs()
        settings = (dropout,) if function is plain_sum else (SCALE, dropout)
        torch.manual_seed(3)
        total = function(y * 1, x, A, B, *settings)
        (total * torch.arange(1.0, 11.0)).square().sum().backward()
        results.append([total.detach(), *(value.grad for value in inputs)])
    for value, expected in zip(*results, strict=True):
        assert expected.any()
        assert (value - expected).norm() < 1e-12 * expected.norm()


@over_dropout
def test_x_can_be_recomputed_in_the_backward_pass(dropout):
    results = []
    for recomputed in (False, True):
        y, x, A, B = inputs = make_inputs()
        calls = []

        def double(half: Tensor, calls: list = calls) -> Tensor:
            calls.append(half)
            return half * 2

        recompute = Recompute(double, (x.detach(),)) if recomputed else None
        torch.manual_seed(3)
        total = lean_sum(y * 1, x * 2, A, B, SCALE, dropout, recompute)
        assert not calls
        total.square().sum().backward()
        assert len(calls) == recomputed
        results.append([total.detach(), *(value.grad for value in inputs)])
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_a_slice_of_a_larger_output_is_not_overwritten():
    y, x, A, B = make_inputs()
    fused = torch.cat([y, y], -1)
    before = fused.detach().clone()
    total = lean_sum(fused[..., :10], x, A, B, SCALE, 0.0)
    torch.testing.assert_close(total, plain_sum(y, x, A, B, 0.0))
    assert torch.equal(fused, before)


def test_only_the_gradients_that_are_needed_are_computed():
    y, x, A, B = make_inputs()
    LoRAFunction.apply(y * 1, x.detach(), A, B.detach(), SCALE, 0.3).sum().backward()
    assert y.grad.any()
    assert A.grad.any()
    assert x.grad is None
    assert B.grad is None


def make_layer(dropout: float = 0.3, width: int = 64) -> LoRALinear:
    torch.manual_seed(0)
    config = LoRAConfig(r=4, lora_dropout=dropout)
    layer = LoRALinear(nn.Linear(width, 96), config).train()
    nn.init.normal_(layer.lora_B)
    return layer


def test_dropout_keeps_the_mean_of_the_update():
    layer, x = make_layer(dropout=0.5), torch.randn(1, 64)
    mean = layer(x.expand(20_000, 64)).mean(0)
    expected = layer.eval()(x)[0]
    assert (mean - expected).norm() < 0.05 * (expected - layer.base(x)[0]).norm()


def test_the_same_seed_gives_the_same_step_bit_for_bit():
    layer, x = make_layer(), torch.randn(3, 64)
    results = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        layer.zero_grad()
        y = layer(x)
        y.square().sum().backward()
        results.append((y.detach(), layer.lora_A.grad.clone(), layer.lora_B.grad.clone()))
    assert all(torch.equal(*pair) for pair in zip(*results[:2], strict=True))
    assert not any(torch.equal(*pair) for pair in zip(*results[1:], strict=True))


@over_dropout
def test_gradient_checkpointing_draws_the_same_mask_again(dropout):
    layers = nn.Sequential(make_layer(dropout), nn.SiLU(), nn.Linear(96, 64), make_layer(dropout))
    x = torch.randn(3, 64)
    gradients = []
    for run in (layers, lambda x: checkpoint(layers, x, use_reentrant=False)):
        torch.manual_seed(5)
        layers.zero_grad()
        run(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in layers.parameters() if p.grad is not None])
    assert len(gradients[0]) == 6
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def kept_bytes(run, parameters: set[int]) -> int:
    """Return the bytes that autograd keeps, each storage once, without those of the parameters."""
    kept = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        run()
    return sum(size for size, _ in kept.values())


@over_dropout
@pytest.mark.parametrize("autocast", [False, True])
def test_three_layers_with_one_input_keep_it_once_and_r_numbers_a_token_each(dropout, autocast):
    tokens, width, layers = 50, 64, [make_layer(dropout) for _ in range(3)]
    x = torch.randn(1, tokens, width, requires_grad=True)
    parameters = {
        p.untyped_storage().data_ptr()
        for layer in layers
        for p in (*layer.parameters(), *layer.base.parameters())
    }

    def run() -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return [layer(x) for layer in layers]

    size = 2 if autocast else 4
    # Autocast keeps a copy of each frozen weight; its size does not depend on the tokens.
    copies = 3 * 64 * 96 * 2 if autocast else 0
    expected = tokens * (4 * width + 3 * 4 * size)
    assert kept_bytes(run, parameters) == expected + copies
