"""The LoRA layer."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora.base import dense_weight, features
from lora.config import LoRAConfig
from lora.lora_function import LoRAFunction, Recompute


class LoRALinear(nn.Module):
    """A frozen linear layer with a trainable low-rank update.

        y = base(x) + scale * B A dropout(x)

    A and B are float32 masters and compute in x's dtype; x is never copied up. The base layer is
    called, never read, so it may be dense or quantized. What is kept for the backward pass is
    named in ``lora.lora_function``.

    Args:
        base: The layer to adapt, with weight (out, in), or (in, out) in GPT-2's ``Conv1D``.
            Frozen in place.
        config: Rank, alpha, dropout and scaling of this layer.

    Shape:
        x: (..., in) -> y: (..., out), in the dtype that base gives.

    Reference:
        Hu et al., LoRA, 2021, section 4.1, arXiv:2106.09685.
    """

    base: nn.Linear

    DECAYED: tuple[str, ...] = ("lora_A", "lora_B")
    """The tensors that may decay: without them the layer is its base."""

    def __init__(self, base: nn.Linear, config: LoRAConfig) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.config = config
        self.enabled = True
        self.in_features, self.out_features = features(base)
        empty = partial(torch.empty, device=base.weight.device, dtype=torch.float32)
        self.lora_A = nn.Parameter(empty(config.r, self.in_features))
        self.lora_B = nn.Parameter(empty(self.out_features, config.r))
        self.reset()

    def reset(self) -> None:
        """Draw A anew and zero B: the update is silent, and B's first gradient is not zero."""
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B)

    def factors(self) -> tuple[Tensor, Tensor]:
        """A (r, in) and B (out, r) of the update, as it is computed and as it is saved."""
        return self.lora_A, self.lora_B

    def forward(self, x: Tensor, recompute: Recompute | None = None) -> Tensor:
        """Apply the layer, with its update unless disabled.

        Args:
            x: (..., in).
            recompute: How x is made again for the backward pass, where it is not to be kept.
        """
        y = self.base(x)
        if not self.enabled:
            return y
        A, B = self.factors()
        dropout = self.config.lora_dropout if self.training else 0.0
        if not (torch.is_grad_enabled() or dropout):
            # Nothing is kept: in the textbook's order, PEFT's too, and quicker for single tokens.
            return y + F.linear(F.linear(x, A.to(x.dtype)), B.to(x.dtype)) * self.config.scale
        # The sum is written into y, which autograd forbids where a layer returns part of another.
        y = y.clone() if y._is_view() else y
        make, parts = recompute or (None, ())
        return LoRAFunction.apply(y, x, A, B, self.config.scale, dropout, make, *parts)

    def merged(self) -> Tensor:
        """The weight of the one dense layer that equals this one, (out, in), in float32."""
        A, B = self.factors()
        return dense_weight(self.base) + self.config.scale * (B @ A).detach()

    @property
    def weight(self) -> Tensor:
        """The frozen weight, for code outside that asks a layer for its dtype or device."""
        return self.base.weight

    @property
    def bias(self) -> Tensor | None:
        """The frozen bias."""
        return self.base.bias
