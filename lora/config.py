"""What a LoRA adapter is made of: the one home of its settings."""

import math
from dataclasses import dataclass, field

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class ConfigError(ValueError):
    """The user asked for something that cannot be done; the message says what can."""


@dataclass(frozen=True)
class LoRAConfig:
    """Settings of an adapter.

    Args:
        r: Rank of the update: rows of A, columns of B.
        lora_alpha: Numerator of the scale.
        lora_dropout: Probability with which an input element of the update is zeroed in training.
        target_modules: Layers to adapt: ``all-linear`` (every linear layer but the output head),
            ``attention``, ``mlp``, or the last names of layers.
        use_rslora: Scale by ``lora_alpha / sqrt(r)`` (arXiv:2312.03732), not ``lora_alpha / r``.
        variant: A key of ``lora.inject.VARIANTS``.

    Raises:
        ConfigError: A value is out of range.
    """

    r: int = 8
    lora_alpha: float = 16
    lora_dropout: float = 0.0
    target_modules: str | list[str] = field(default_factory=lambda: list(PROJECTIONS))
    use_rslora: bool = False
    variant: str = "lora"

    def __post_init__(self) -> None:
        if self.r < 1:
            raise ConfigError(f"lora.r is {self.r}; it must be 1 or more (8 and 16 are usual)")
        if not (math.isfinite(self.lora_alpha) and self.lora_alpha > 0):
            raise ConfigError(f"lora.lora_alpha is {self.lora_alpha}; it must be above 0")
        if not 0 <= self.lora_dropout < 1:
            raise ConfigError(f"lora.lora_dropout is {self.lora_dropout}; it must be in [0, 1)")
        if not self.target_modules:
            raise ConfigError("lora.target_modules is empty; name layers, or use all-linear")

    @property
    def scale(self) -> float:
        """The factor of the update, BA."""
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)
