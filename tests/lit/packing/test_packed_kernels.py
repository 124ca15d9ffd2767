"""Attention of all rows by one call equals that of each row alone."""

import inspect
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import varlen as torch_varlen

from lit.device.device import Traits
from lit.packing import attention, kernels
from lit.packing.kernels import nested, varlen

VARLEN_ATTN = torch_varlen.varlen_attn
LENGTHS = (9, 3, 40, 1, 17)
HEADS, KV_HEADS, SIZE = 4, 2, 16


def states() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(  # type: ignore[return-value]
        torch.randn(1, heads, sum(LENGTHS), SIZE, generator=generator, requires_grad=True)
        for heads in (HEADS, KV_HEADS, KV_HEADS)
    )


def borders() -> Tensor:
    return torch.tensor([0, *LENGTHS]).cumsum(0, dtype=torch.int32)


def each_row(q: Tensor, k: Tensor, v: Tensor, scaling: float | None, window: int | None) -> Tensor:
    """Compute every row alone, with a mask written out."""
    split = zip(*(part.split(LENGTHS, dim=2) for part in (q, k, v)), strict=True)
    rows = [one_row(*parts, scaling, window) for parts in split]
    return torch.cat(rows, dim=2).transpose(1, 2)


def one_row(q: Tensor, k: Tensor, v: Tensor, scaling: float | None, window: int | None) -> Tensor:
    """Compute one row, whose queries are the last of its keys."""
    query, key, value = (part.repeat_interleave(HEADS // part.shape[1], 1) for part in (q, k, v))
    last = torch.arange(key.shape[2] - query.shape[2], key.shape[2])
    distance = last[:, None] - torch.arange(key.shape[2])
    mask = (distance >= 0) & (distance < (window or sum(LENGTHS)))
    return F.scaled_dot_product_attention(query, key, value, mask, scale=scaling)


def flash_by_its_documentation(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int, **given
) -> Tensor:
    """Stand in for torch's varlen_attn, which has no kernel on a CPU, by what it documents."""
    left, right = given["window_size"]
    assert right == 0
    queries, keys = cu_q.diff().tolist(), cu_k.diff().tolist()
    assert (max_q, max_k) == (max(queries), max(keys))
    assert cu_q.dtype == cu_k.dtype == torch.int32
    assert given["enable_gqa"] == (q.shape[1] != k.shape[1])
    split = (q.split(queries), k.split(keys), v.split(keys))
    # A window of (W, 0) is a token and W to its left. Queries are the last of the keys.
    window = None if left == -1 else left + 1
    rows = [
        one_row(*(part.transpose(0, 1)[None] for part in parts), given["scale"], window)[0]
        for parts in zip(*split, strict=True)
    ]
    return torch.cat(rows, 1).transpose(0, 1)


def nested_by_its_documentation(
    q: Tensor, k: Tensor, v: Tensor, is_causal: bool, scale: float | None
) -> Tensor:
    """Stand in for the kernel of nested tensors, which a CPU lacks for causal attention."""
    assert is_causal
    assert q.shape[1] == k.shape[1] == v.shape[1]
    assert q.dim() == 4
    rows = zip(*(part.unbind() for part in (q, k, v)), strict=True)
    outputs = [
        F.scaled_dot_product_attention(*parts, is_causal=True, scale=scale).transpose(0, 1)
        for parts in rows
    ]
    return torch.nested.as_nested_tensor(outputs, layout=torch.jagged).transpose(1, 2)


@pytest.fixture(autouse=True)
def simulated_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels of a GPU, by what torch documents of them."""
    functions = SimpleNamespace(scaled_dot_product_attention=nested_by_its_documentation)
    monkeypatch.setattr(kernels, "F", functions)
    monkeypatch.setattr(torch_varlen, "varlen_attn", flash_by_its_documentation)


@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize(("kernel", "window"), [("varlen", None), ("varlen", 5), ("nested", None)])
def test_a_kernel_computes_what_each_row_alone_computes_and_its_gradients(
    kernel: str, window: int | None, scaling: float | None
):
    inputs, longest = states(), max(LENGTHS)
    if kernel == "varlen":
        output = varlen(*inputs, borders(), longest, scaling, window)
    else:
        output = nested(*inputs, borders(), longest, scaling)
    expected = each_row(*inputs, scaling, window)
    assert output.shape == (1, sum(LENGTHS), HEADS, SIZE)
    torch.testing.assert_close(output, expected)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    for ours, plain in zip(
        *(torch.autograd.grad((y * weights).sum(), inputs) for y in (output, expected)), strict=True
    ):
        torch.testing.assert_close(ours, plain)


every_device = pytest.mark.parametrize("device", ["CPU", "T4", "A100", "A100 in half precision"])


@pytest.mark.parametrize("window", [None, 5, 100])
@every_device
def test_packed_attention_gives_the_same_on_the_path_of_every_device(
    device: str, window: int | None, monkeypatch: pytest.MonkeyPatch
):
    capability = {"CPU": None, "T4": (7, 5)}.get(device, (8, 0))
    known = Traits("cuda" if capability else "cpu", device, capability)
    monkeypatch.setattr(attention, "traits", lambda _: known)
    dtype = torch.bfloat16 if "half" in device else torch.float32
    q, k, v = (part.to(dtype) for part in states())
    module = torch.nn.Module()
    module.num_key_value_groups = HEADS // KV_HEADS
    output, _ = attention.packed_attention(
        module,
        q,
        k,
        v,
        None,
        row_lengths=LENGTHS,
        cu_seq_lens_q=borders(),
        sliding_window=window,
    )
    torch.testing.assert_close(output, each_row(q, k, v, None, window))


@pytest.mark.parametrize("window", [None, 5, 15, 100])
@every_device
def test_shared_beginnings_give_the_same_on_the_path_of_every_device(
    device: str, window: int | None, monkeypatch: pytest.MonkeyPatch
):
    # The second and the fourth segment go on from the first, the third from both.
    paths = (0,), (0, 1), (0, 1, 2), (0, 3), (4,)
    capability = {"CPU": None, "T4": (7, 5)}.get(device, (8, 0))
    known = Traits("cuda" if capability else "cpu", device, capability)
    monkeypatch.setattr(attention, "traits", lambda _: known)
    dtype = torch.bfloat16 if "half" in device else torch.float32
    q, k, v = (part.to(dtype) for part in states())
    places = torch.arange(sum(LENGTHS)).split(LENGTHS)
    tokens = [torch.cat([places[segment] for segment in path]) for path in paths]
    counts = [len(some) for some in tokens]
    borders_seen = torch.tensor([0, *counts]).cumsum(0, dtype=torch.int32)
    seen = attention.Seen(paths, torch.cat(tokens), borders_seen, max(counts))
    module = torch.nn.Module()
    module.num_key_value_groups = HEADS // KV_HEADS
    output, _ = attention.packed_attention(
        module,
        *(q, k, v, None),
        row_lengths=LENGTHS,
        cu_seq_lens_q=borders(),
        seen=seen,
        sliding_window=window,
    )
    rows = zip(q.split(LENGTHS, 2), (k[:, :, some] for some in tokens), tokens, strict=True)
    expected = [one_row(q, k, v[:, :, some], None, window) for q, k, some in rows]
    torch.testing.assert_close(output, torch.cat(expected, 2).transpose(1, 2))


def test_the_kernel_that_stands_in_here_is_called_with_arguments_that_torch_has():
    known = inspect.signature(VARLEN_ATTN).parameters
    assert {"scale", "window_size", "enable_gqa"} <= set(known)
    assert [*known][:7] == [
        *("query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"),
    ]
