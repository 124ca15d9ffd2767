"""The LoRA layer: a frozen linear layer plus a trainable low-rank update."""

import math
from contextvars import ContextVar
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora.base import dense_copy, dense_weight, features
from lora.config import LoRAConfig
from lora.dropout import drop
from lora.lora_function import Recompute, lean_sum
from lora.replacement import Replacement

DISABLED: ContextVar[frozenset[int]] = ContextVar("disabled adapters", default=frozenset())
"""The ids of the adapters that are disabled in the current thread or asyncio task."""


class Adapter(Replacement):
    """A replacement with parameters that train.

    While ``enabled`` is false, it computes what its base computes.
    ``lora.injection.adapters_disabled`` sets it.
    """

    base: nn.Module

    @property
    def enabled(self) -> bool:
        """Whether the adapter is part of the model, in the current thread."""
        return id(self) not in DISABLED.get()

    def original(self) -> nn.Module:
        """Return the frozen layer that this one wraps."""
        return self.base


class LoRALinear(Adapter):
    """A frozen linear layer with a trainable low-rank update.

        y = base(x) + scale * B A dropout(x)        scale = lora_alpha / r

    A and B are stored in float32 and cast to the dtype of x in each forward pass; x is never cast
    to float32. The forward pass calls the base layer and does not read its weight, so the base may
    be dense or quantized. A starts random and B zero: a new adapter changes no output, and the
    first gradient of B is not zero.

    Args:
        base: The layer to adapt, with weight (out, in), or (in, out) in GPT-2's ``Conv1D``. It is
            frozen in place.
        config: Rank, alpha, dropout and scaling of this layer.

    Shape:
        x: (..., in) -> y: (..., out), in the dtype of base(x).

    Reference:
        Hu et al., LoRA, 2021, section 4.1, arXiv:2106.09685.
    """

    base: nn.Linear
    experts = 1
    """The pairs of factors: one, as the layer is no mixture of experts."""

    DECAYED: tuple[str, ...] = ("lora_A", "lora_B")
    """Parameters that weight decay may shrink: at zero the layer equals its base."""

    def __init__(self, base: nn.Linear, config: LoRAConfig) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.config = config
        self.in_features, self.out_features = features(base)
        empty = partial(torch.empty, device=base.weight.device, dtype=torch.float32)
        self.lora_A = nn.Parameter(empty(config.r, self.in_features))
        self.lora_B = nn.Parameter(empty(self.out_features, config.r))
        self.reset()

    def reset(self) -> None:
        """Draw A from a uniform distribution and set B to zero."""
        # The paper draws A from a Gaussian. The authors' code and PEFT use this distribution,
        # which is uniform in ±1/√in.
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B)

    def forward(self, x: Tensor, recompute: Recompute | None = None) -> Tensor:
        """Return base(x) + scale * B A dropout(x), or base(x) while the adapter is disabled.

        Args:
            x: (..., in).
            recompute: How the backward pass computes x again, for an x that autograd should not
                keep, such as the output of an activation function.
        """
        y = self.base(x)
        if not self.enabled:
            return y
        A, B = self.factors()
        scale, dropout = self.config.scale, self.config.lora_dropout if self.training else 0.0
        if torch.is_grad_enabled():
            # The same sum as below with the same gradients; autograd keeps fewer tensors for it.
            return lean_sum(y, x, A, B, scale, dropout, recompute)
        return y + F.linear(F.linear(drop(x, dropout), A.to(x.dtype)), B.to(x.dtype)) * scale

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return the A (r, in) and B (out, r) that the forward pass uses and that are saved."""
        return self.lora_A, self.lora_B

    def merged_weight(self) -> Tensor:
        """Return W + scale * B A, the weight of one dense layer that computes the same.

        Returns:
            (out, in), float32.
        """
        A, B = self.factors()
        return dense_weight(self.base) + self.config.scale * (B @ A).detach()

    def folded(self) -> nn.Module:
        """Return a dense layer that computes the same, in the dtype of the base."""
        return dense_copy(self.base, self.merged_weight())

    @property
    def weight(self) -> Tensor:
        """The frozen weight, for code that asks a layer for its dtype or device."""
        return self.base.weight

    @property
    def bias(self) -> Tensor | None:
        """The frozen bias."""
        return self.base.bias
