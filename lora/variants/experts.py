"""Adapters on the experts of a mixture, whose weights are parameters of three dimensions."""

import copy
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora.config import LoRAConfig, check_for_experts
from lora.families.experts import DOWN, expert_features, expert_parameters, split_factors
from lora.layer import Adapter

Factors = dict[str, list[tuple[Tensor, Tensor]]]
"""A, (r, in), and B, (out, r), of each expert, by the name of the parameter."""


class ExpertFactors(nn.Module):
    """The update of one parameter: a pair of factors for each expert.

    Args:
        base: The experts.
        name: The name of their parameter.
        config: Rank and scaling.
    """

    DECAYED: tuple[str, ...] = ("lora_A", "lora_B")

    def __init__(self, base: nn.Module, name: str, config: LoRAConfig) -> None:
        super().__init__()
        self.config = config
        self.experts, self.in_features, self.out_features = expert_features(base, name)
        device = base.get_parameter(name).device
        empty = partial(torch.empty, device=device, dtype=torch.float32)
        # The layout of PEFT's files: the rows of A are grouped by expert, the columns of B by rank.
        self.lora_A = nn.Parameter(empty(self.experts * config.r, self.in_features))
        self.lora_B = nn.Parameter(empty(self.out_features, config.r * self.experts))
        self.reset()

    def reset(self) -> None:
        """Draw A as a linear layer of the same width draws it, and set B to zero."""
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B)

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return A, (experts * r, in), and B, (out, r * experts), as they are saved."""
        return self.lora_A, self.lora_B

    def by_expert(self, dtype: torch.dtype = torch.float32) -> list[tuple[Tensor, Tensor]]:
        """Return A, (r, in), and B, (out, r), of each expert.

        An expert without tokens gets gradients of zero, since all experts share one parameter.
        """
        A, B = (factor.to(dtype) for factor in self.factors())
        return list(zip(*(t.unbind() for t in split_factors(A, B, self.experts)), strict=True))


class LoRAExperts(Adapter):
    """The experts of a mixture with a low-rank update of each expert's two weights.

        y = W_e x + scale * B_e A_e x        for the tokens that chose expert e

    The update of a weight is never built as a matrix. Biases stay as they are.

    Args:
        base: The experts, see ``lora.families.experts``. They are frozen in place.
        configs: The settings of the update of each parameter, by its name.

    Raises:
        ConfigError: The settings have dropout or a variant, which experts do not take.
    """

    base: Any
    adapted: Any

    def __init__(self, base: nn.Module, configs: dict[str, LoRAConfig]) -> None:
        super().__init__()
        for config in configs.values():
            check_for_experts(config)
        self.base = base.requires_grad_(False)
        self.adapted = nn.ModuleDict(
            {name: ExpertFactors(base, name, config) for name, config in configs.items()}
        )

    def updates(self) -> Iterator[tuple[str, ExpertFactors]]:
        """Yield the update of each parameter with the parameter's name, in order of definition."""
        yield from self.adapted.items()

    def forward(self, hidden: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Return the weighted sum of the chosen experts' outputs, (tokens, hidden).

        Args:
            hidden: (tokens, hidden).
            chosen: The experts of each token, (tokens, k).
            weights: Their weights, (tokens, k).
        """
        if not self.enabled:
            return self.base(hidden, chosen, weights)
        k, flat = chosen.shape[1], chosen.reshape(-1)
        # Pairs of token and expert in the order of experts, so that each has a range of rows.
        order = flat.argsort(stable=True)
        counts = flat.bincount(minlength=self.base.num_experts).tolist()
        rows = hidden[order // k].split(counts)
        factors = {name: update.by_expert(hidden.dtype) for name, update in self.updates()}
        outputs = torch.cat([self._expert(x, e, factors) for e, x in enumerate(rows) if len(x)])
        outputs = outputs * weights.reshape(-1)[order, None]
        places = torch.empty_like(order)
        places[order] = torch.arange(len(order), device=order.device)
        return outputs[places].view(len(hidden), k, -1).sum(1).to(hidden.dtype)

    def _expert(self, x: Tensor, expert: int, factors: Factors) -> Tensor:
        """Return the output of one expert, (rows, hidden)."""
        base = self.base
        activation = base._apply_gate if base.has_gate else base.act_fn

        def product(x: Tensor, name: str) -> Tensor:
            A, B = factors[name][expert]
            weight = getattr(base, name)[expert]
            y = F.linear(x, weight.T if base.is_transposed else weight)
            y = y + F.linear(F.linear(x, A), B) * self.adapted[name].config.scale
            return y + getattr(base, f"{name}_bias")[expert] if base.has_bias else y

        up = next(name for name in factors if name != DOWN)
        return product(activation(product(x, up)), DOWN)

    @torch.no_grad()
    def merged_parameter(self, name: str) -> Tensor:
        """Return a parameter with its update, in the shape and the dtype of the base."""
        frozen, update = self.base.get_parameter(name), self.adapted[name]
        merged = torch.empty_like(frozen)
        # Expert by expert, so that the float32 copies stay small.
        for new, weight, (A, B) in zip(merged, frozen, update.by_expert(), strict=True):
            change = update.config.scale * (B @ A)
            new.copy_(weight.float() + (change.T if self.base.is_transposed else change))
        return merged

    def folded(self) -> nn.Module:
        """Return experts that compute the same, in the dtype of the base."""
        dense = copy.copy(self.base)
        # copy.copy shares the dictionary of parameters with the original.
        dense._parameters = dict(self.base._parameters)
        for name in self.adapted:
            merged = self.merged_parameter(name)
            dense.register_parameter(name, nn.Parameter(merged, requires_grad=False))
        return dense


def wrap_experts(base: nn.Module, path: str, config: LoRAConfig) -> LoRAExperts:
    """Return experts with adapters, by the settings of their place in a model."""
    return LoRAExperts(
        base, {name: config.at(f"{path}.{name}", path) for name in expert_parameters(base)}
    )
