"""The update as one step of autograd: its gradients, its dropout, and what it keeps."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from lora.config import LoRAConfig
from lora.layer import LoRALinear
from lora.lora_function import LoRAFunction, dropout_mask

SCALE = 1.5
over_dropout = pytest.mark.parametrize("dropout", [0.0, 0.3])
over_dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)


def leaves(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """y (2, 7, 10), x (2, 7, 6), A (3, 6), B (10, 3); A and B never below float32."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"y": (2, 7, 10), "x": (2, 7, 6), "A": (3, 6), "B": (10, 3)}
    master = torch.promote_types(dtype, torch.float32)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64)
        .to(master if name in "AB" else dtype)
        .requires_grad_()
        for name, shape in shapes.items()
    ]


def by_autograd(y: Tensor, x: Tensor, A: Tensor, B: Tensor, dropout: float) -> Tensor:
    """The same sum in plain steps, with the mask that torch's generator is about to give."""
    if dropout:
        mask, kept = dropout_mask(x.shape, dropout, int(torch.randint(2**62, ())), x.detach())
        x = x * mask / kept
    return y + SCALE * x @ A.to(x.dtype).T @ B.to(x.dtype).T


@over_dropout
@over_dtypes
def test_sum_and_gradients_are_those_of_autograd_with_the_same_mask(dropout, dtype):
    ours, plain = leaves(dtype), leaves(dtype)
    weight = torch.randn(10, dtype=torch.float64).to(dtype)
    for step, function in ((ours, LoRAFunction.apply), (plain, None)):
        torch.manual_seed(3)
        total = (
            function(step[0] * 1, *step[1:], SCALE, dropout)
            if function
            else by_autograd(*step, dropout)
        )
        assert total.dtype == dtype
        (total * weight).square().sum().backward()
    for one, other in zip(ours, plain, strict=True):
        assert one.grad.dtype == one.dtype
        assert other.grad.any()
        off = (one.grad - other.grad).norm() / other.grad.norm()
        assert off < (1e-12 if dtype == torch.float64 else 0.03)


def test_only_gradients_that_are_asked_for_are_computed():
    y, x, A, B = leaves()
    LoRAFunction.apply(y * 1, x.detach(), A, B.detach(), SCALE, 0.3).sum().backward()
    assert y.grad.any()
    assert A.grad.any()
    assert x.grad is None
    assert B.grad is None


@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.9, 1e-6, 1 - 1e-6])
def test_dropout_keeps_the_share_it_says_at_every_place(dropout):
    shape = torch.Size((1000, 401))
    mask, kept = dropout_mask(shape, dropout, 7, torch.empty(0))
    assert abs(kept - (1 - dropout)) < (2**-8.9 if 0.03 < dropout < 0.97 else 2**-16)
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    spread = (kept * (1 - kept)) ** 0.5
    for place in range(8):  # eight elements come out of one draw
        part = mask.flatten()[place::8]
        assert abs(part.mean() - kept) < 5 * spread / len(part) ** 0.5 + 1e-6
    neighbors = (mask.flatten()[1:] * mask.flatten()[:-1]).mean()
    assert abs(neighbors - kept**2) < 6 * spread / mask.numel() ** 0.5 + 1e-6


def test_a_mask_belongs_to_its_seed_and_disturbs_no_other_draw():
    shape, like = torch.Size((40, 10)), torch.empty(0)
    torch.manual_seed(0)
    first = torch.rand(3)
    torch.manual_seed(0)
    one, again, other = (dropout_mask(shape, 0.5, seed, like)[0] for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), first)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def make_layer(dropout: float = 0.3, width: int = 64) -> LoRALinear:
    torch.manual_seed(0)
    config = LoRAConfig(r=4, lora_dropout=dropout)
    layer = LoRALinear(nn.Linear(width, 96), config).train()
    nn.init.normal_(layer.lora_B)
    return layer


def test_what_is_dropped_is_made_up_for_on_average():
    layer, x = make_layer(dropout=0.5), torch.randn(1, 64)
    mean = layer(x.expand(20_000, 64)).mean(0)
    wanted = layer.eval()(x)[0]
    assert (mean - wanted).norm() < 0.05 * (wanted - layer.base(x)[0]).norm()


def test_the_same_seed_gives_the_same_step_bit_for_bit():
    layer, x = make_layer(), torch.randn(3, 64)
    results = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        layer.zero_grad()
        y = layer(x)
        y.square().sum().backward()
        results.append((y.detach(), layer.lora_A.grad.clone(), layer.lora_B.grad.clone()))
    assert all(torch.equal(a, b) for a, b in zip(*results[:2], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(*results[1:], strict=True))


@over_dropout
def test_checkpointing_draws_the_same_mask_again(dropout):
    layers = nn.Sequential(make_layer(dropout), nn.SiLU(), nn.Linear(96, 64), make_layer(dropout))
    x = torch.randn(3, 64)
    gradients = []
    for run in (layers, lambda x: checkpoint(layers, x, use_reentrant=False)):
        torch.manual_seed(5)
        layers.zero_grad()
        run(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in layers.parameters() if p.grad is not None])
    assert len(gradients[0]) == 6
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def kept_bytes(run, parameters: set[int]) -> int:
    """Bytes that autograd keeps, each storage once, parameters aside."""
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
def test_three_layers_of_one_input_keep_that_input_and_r_numbers_a_token(dropout, autocast):
    tokens, width, layers = 50, 64, [make_layer(dropout) for _ in range(3)]
    x = torch.randn(1, tokens, width, requires_grad=True)
    known = {
        p.untyped_storage().data_ptr()
        for layer in layers
        for p in (*layer.parameters(), *layer.base.parameters())
    }

    def run() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return [layer(x) for layer in layers]

    size = 2 if autocast else 4
    # Under autocast a frozen weight's copy is kept too: it is as large whatever the tokens are.
    copies = 3 * 64 * 96 * 2 if autocast else 0
    expected = tokens * (4 * width + 3 * 4 * size)
    assert kept_bytes(run, known) == expected + copies


def test_autocast_computes_in_its_dtype_and_trains_float32_masters():
    layer, x = make_layer(), torch.randn(3, 64)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    y.float().square().sum().backward()
    assert y.dtype == torch.bfloat16
    assert layer.lora_A.grad.dtype == layer.lora_B.grad.dtype == torch.float32
    exact = layer.eval()(x) - layer.base(x)
    with torch.autocast("cpu", torch.bfloat16):
        off = (layer(x) - layer.base(x)).float() - exact
    assert 0 < off.norm() < 0.05 * exact.norm()
