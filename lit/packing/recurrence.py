"""Layers that carry something from token to token, given each row alone inside a packed model."""

import inspect
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from lora.replacement import Replacement, replace_module, replacements

KERNELS: dict[str, str | None] = {
    "causal_conv1d_fn": "causal_conv1d",
    "torch_chunk_gated_delta_rule": "fla",
    "mamba2_chunk_scan": "mamba_ssm",
    "chunk_kimi_delta_attention": None,
    "mamba_selective_scan": None,
    "slope_rate": None,
    "rg_lru": None,
}
"""What the code of such a layer calls or reads, and the package that has it with borders of rows.

None where transformers passes no borders on, so that rows are always given one by one.
"""
BORDERS = ("row_lengths", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")
"""What tells a layer where rows begin; a row alone has no border."""


class RowByRow(Replacement):
    """A convolution or recurrence over tokens that starts again at each row's border.

        y = [layer(x of row 1), layer(x of row 2), …]

    The rest of the model takes all rows at once. Called without ``row_lengths``, as in generation,
    it is the layer. The layer's own children and parameters are those of this module, in the same
    dictionaries: their paths do not change, and an adapter that is put on either is on both.

    Args:
        layer: The layer to replace.
        by_kernel: Give the layer all rows at once with their borders, for the kernels of
            flash-linear-attention, mamba-ssm and causal-conv1d. Not run yet on any machine.
    """

    def __init__(self, layer: nn.Module, by_kernel: bool = False) -> None:
        super().__init__()
        self._parameters, self._buffers = layer._parameters, layer._buffers
        self._modules = layer._modules
        self._non_persistent_buffers_set = layer._non_persistent_buffers_set
        self.training = layer.training
        # In a tuple, so that it is no child and adds nothing to the paths.
        self._layer = (layer,)
        self.by_kernel = by_kernel

    def original(self) -> nn.Module:
        """Return the replaced layer, which has the children and parameters of this one."""
        return self._layer[0]

    def train(self, mode: bool = True) -> "RowByRow":
        """Set the layer, too, to training or evaluation."""
        self.original().training = mode
        return super().train(mode)

    def forward(
        self, *inputs: Any, row_lengths: tuple[int, ...] | None = None, **options: Any
    ) -> Any:
        """Return what the layer computes for each row alone.

        Args:
            inputs, options: What the model gives its layer; tensors of (1, tokens, …), alone or in
                a tuple, are split into rows.
            row_lengths: Tokens of each row; None for one sequence.

        Returns:
            (1, tokens, hidden); where the layer returns a tuple, a tuple that begins with it.
        """
        (layer,) = self._layer
        if row_lengths is None:
            return layer(*inputs, **options)
        if self.by_kernel:
            numbers = _row_numbers(row_lengths, options["cu_seq_lens_q"])
            return layer(*inputs, seq_idx=numbers, **options)
        given = {name: value for name, value in options.items() if name not in BORDERS}
        tokens, rows = sum(row_lengths), []
        for last, length in zip(accumulate(row_lengths), row_lengths, strict=True):
            row = slice(last - length, last)
            alone = {name: _cut(value, row, tokens) for name, value in given.items()}
            rows.append(layer(*_cut(inputs, row, tokens), **alone))
        if isinstance(rows[0], Tensor):
            return torch.cat(rows, 1)
        # What follows the output is for a cache or for display, and packed rows have neither.
        return torch.cat([row[0] for row in rows], 1), *[None] * (len(rows[0]) - 1)

    def extra_repr(self) -> str:
        """Return what ``print(model)`` shows of it."""
        return type(self.original()).__name__


def separate_rows(model: nn.Module, by_kernel: bool = False) -> int:
    """Replace each layer that carries something from token to token; return how many there are."""
    join_rows(model)
    layers = {
        path: module
        for path, module in model.named_modules(remove_duplicate=False)
        if path and _calls(module)
    }
    # A layer that is shared between two paths stays shared.
    made = {id(layer): RowByRow(layer, by_kernel) for layer in layers.values()}
    for path, layer in layers.items():
        replace_module(model, path, made[id(layer)])
    return len(made)


def join_rows(model: nn.Module) -> None:
    """Put the layers back that ``separate_rows`` replaced."""
    for path, module in replacements(model):
        if isinstance(module, RowByRow):
            replace_module(model, path, module.original())


def mixes_rows(model: nn.Module) -> str | None:
    """Return the class of a layer that would carry something over a border, or None."""
    return next((type(layer).__name__ for layer in model.modules() if _calls(layer)), None)


def has_kernels(model: nn.Module, device: torch.device) -> bool:
    """Return whether every such layer of a model has kernels here that know borders of rows."""
    packages = {KERNELS[call] for module in model.modules() for call in _calls(module)}
    return (
        bool(packages)
        and device.type == "cuda"
        and all(package is not None and find_spec(package) is not None for package in packages)
    )


def _calls(module: nn.Module) -> list[str]:
    """Return what the code of a module calls that carries something from token to token."""
    return _calls_of(type(module).forward)


@cache
def _calls_of(forward: Callable[..., Any]) -> list[str]:
    code = getattr(inspect.unwrap(forward), "__code__", None)
    return [] if code is None else [name for name in KERNELS if name in code.co_names]


def _cut(value: Any, row: slice, tokens: int) -> Any:
    """Return the part of each tensor (1, tokens, …) that belongs to a row; the rest as it is."""
    if isinstance(value, tuple):
        return tuple(_cut(part, row, tokens) for part in value)
    if isinstance(value, Tensor) and value.dim() > 1 and value.shape[:2] == (1, tokens):
        return value[:, row]
    return value


def _row_numbers(row_lengths: tuple[int, ...], cu_seqlens: Tensor) -> Tensor:
    """Return the number of each token's row, (1, tokens), int32, without a wait for the device."""
    numbers = torch.arange(len(row_lengths), dtype=torch.int32, device=cu_seqlens.device)
    total = sum(row_lengths)
    return numbers.repeat_interleave(cu_seqlens.diff(), output_size=total)[None]
