"""What a LoRA adapter is made of: the one home of its settings."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

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
        variant: A key of ``lora.inject.VARIANTS``: ``lora``, ``dora`` or ``pissa``.
        rank_pattern: Ranks of some layers, by their last names; of two names the first counts.
        alpha_pattern: Alphas of some layers, by their last names.
        layers_to_transform: Numbers of the blocks to adapt, from 0; all unless given.
        modules_to_save: Last names of embeddings or of the head, to train in full.
        loraplus_lr_ratio: How many times faster B learns than A (LoRA+, arXiv:2402.12354).
        neftune_alpha: Noise on the input embeddings in training (arXiv:2310.05914); 5 is usual.

    Raises:
        ConfigError: A value is out of range.
    """

    r: int = 8
    lora_alpha: float = 16
    lora_dropout: float = 0.0
    target_modules: str | list[str] = field(default_factory=lambda: list(PROJECTIONS))
    use_rslora: bool = False
    variant: str = "lora"
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    layers_to_transform: list[int] | None = None
    modules_to_save: list[str] = field(default_factory=list)
    loraplus_lr_ratio: float = 1.0
    neftune_alpha: float = 0.0

    def __post_init__(self) -> None:
        for name, r in {"r": self.r, **_named("rank_pattern", self.rank_pattern)}.items():
            if r < 1:
                raise ConfigError(f"lora.{name} is {r}; it must be 1 or more (8 and 16 are usual)")
        alphas = {"lora_alpha": self.lora_alpha, **_named("alpha_pattern", self.alpha_pattern)}
        for name, alpha in alphas.items():
            if not (math.isfinite(alpha) and alpha > 0):
                raise ConfigError(f"lora.{name} is {alpha}; it must be above 0")
        if not 0 <= self.lora_dropout < 1:
            raise ConfigError(f"lora.lora_dropout is {self.lora_dropout}; it must be in [0, 1)")
        if not self.target_modules:
            raise ConfigError("lora.target_modules is empty; name layers, or use all-linear")
        if self.layers_to_transform is not None and (
            not self.layers_to_transform or min(self.layers_to_transform) < 0
        ):
            raise ConfigError(
                f"lora.layers_to_transform is {self.layers_to_transform}; give numbers of blocks, "
                "from 0, or leave it out for all of them"
            )
        if not (math.isfinite(self.loraplus_lr_ratio) and self.loraplus_lr_ratio > 0):
            raise ConfigError(
                f"lora.loraplus_lr_ratio is {self.loraplus_lr_ratio}; it must be above 0 "
                "(1 is plain LoRA, 16 is usual)"
            )
        if not (math.isfinite(self.neftune_alpha) and self.neftune_alpha >= 0):
            raise ConfigError(
                f"lora.neftune_alpha is {self.neftune_alpha}; it must be 0, for none, or more"
            )

    @property
    def scale(self) -> float:
        """The factor of the update, BA."""
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)

    def at(self, path: str) -> "LoRAConfig":
        """The settings of the layer at a path: the patterns are looked up, and gone."""
        r = next((r for name, r in self.rank_pattern.items() if ends_with(path, name)), self.r)
        alphas = self.alpha_pattern.items()
        alpha = next((a for name, a in alphas if ends_with(path, name)), self.lora_alpha)
        return replace(self, r=r, lora_alpha=alpha, rank_pattern={}, alpha_pattern={})


def ends_with(path: str, target: str) -> bool:
    """Whether a module's path ends with a target, at a dot."""
    return path == target or path.endswith("." + target)


def path_suffixes(path: str) -> Iterator[str]:
    """Every target that a path ends with, the shortest first."""
    parts = path.split(".")
    return (".".join(parts[-length:]) for length in range(1, len(parts) + 1))


def index_by_suffix(paths: Iterable[str]) -> dict[str, set[str]]:
    """The paths that each target means: a look-up that many targets do not slow down."""
    named: dict[str, set[str]] = {}
    for path in paths:
        for end in path_suffixes(path):
            named.setdefault(end, set()).add(path)
    return named


def _named(name: str, pattern: dict) -> dict:
    return {f"{name}[{key!r}]": value for key, value in pattern.items()}
