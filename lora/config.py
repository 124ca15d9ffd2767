"""The settings of a LoRA adapter, with their defaults and limits."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from lora.messages import tr
from lora.paths import ends_with

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
EXPERTS = "experts"
"""The target that stands for all experts of a model, and their name in most families."""
MAX_RANK = 2**16
"""Far above any useful rank: one above the width of a layer adds nothing."""


class ConfigError(ValueError):
    """An argument is wrong; the message says which one and what to change.

    Messages put the name of an argument in backticks.
    """


@dataclass(frozen=True)
class LoRAConfig:
    """The settings of a LoRA adapter.

    Args:
        r: Rank of the update: rows of A, columns of B.
        lora_alpha: Numerator of the scale.
        lora_dropout: Probability that an input element of the update is zeroed in training.
        target_modules: Layers to adapt: ``projections`` (every linear layer but the output head
            and routers), ``all-linear`` (with routers), ``attention``, ``mlp``, ``experts`` (the
            weights of experts that one tensor holds for a whole block), or the last names of
            layers; one or a list.
        exclude_modules: Last names of layers, or ends of their paths, to leave out of
            ``target_modules``, such as ``down_proj`` or ``layers.0.mlp.down_proj``.
        use_rslora: Scale by ``lora_alpha / sqrt(r)`` (arXiv:2312.03732) instead of
            ``lora_alpha / r``.
        variant: A key of ``lora.injection.VARIANTS``: ``lora``, ``dora`` or ``pissa``.
        rank_pattern: Ranks of single layers, by the end of their path, such as ``up_proj`` or
            ``mlp.up_proj``; the first one that matches counts.
        alpha_pattern: Alphas of single layers, by the end of their path.
        layers_to_transform: Numbers of the blocks to adapt, from 0; all by default.
        modules_to_save: Last names of layers to train in full: embeddings or the output head.
        ensure_weight_tying: Train layers with tied weights as the one matrix that they are; if
            false, each layer of ``modules_to_save`` trains apart, as PEFT does by default.
        loraplus_lr_ratio: Learning rate of B divided by that of A (LoRA+, arXiv:2402.12354).
        neftune_alpha: Noise on the input embeddings in training (arXiv:2310.05914); 5 is usual.

    Raises:
        ConfigError: A value is out of range.
    """

    r: int = 8
    lora_alpha: float = 16
    lora_dropout: float = 0.0
    target_modules: str | list[str] = "projections"
    exclude_modules: list[str] = field(default_factory=list)
    use_rslora: bool = False
    variant: str = "lora"
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    layers_to_transform: list[int] | None = None
    modules_to_save: list[str] = field(default_factory=list)
    ensure_weight_tying: bool = True
    loraplus_lr_ratio: float = 1.0
    neftune_alpha: float = 0.0

    def __post_init__(self) -> None:
        for name, r in {"`r`": self.r, **_named("rank_pattern", self.rank_pattern)}.items():
            if r < 1:
                raise ConfigError(
                    tr("{name} is {r}; it must be 1 or more (8 and 16 are usual)", name=name, r=r)
                )
            if r > MAX_RANK:
                raise ConfigError(
                    tr(
                        "{name} is {r}; it must be at most {max_rank}",
                        name=name,
                        r=r,
                        max_rank=MAX_RANK,
                    )
                )
        alphas = {"`lora_alpha`": self.lora_alpha, **_named("alpha_pattern", self.alpha_pattern)}
        for name, alpha in alphas.items():
            if not _is_finite(alpha) or alpha <= 0:
                raise ConfigError(
                    tr("{name} is {alpha}; it must be finite and above 0", name=name, alpha=alpha)
                )
        if not 0 <= self.lora_dropout < 1:
            raise ConfigError(
                tr(
                    "`lora_dropout` is {lora_dropout}; it must be in [0, 1)",
                    lora_dropout=self.lora_dropout,
                )
            )
        if not self.target_modules:
            raise ConfigError(tr("`target_modules` is empty; name layers, or use all-linear"))
        targets = self.target_modules
        if any(ends_with(t, EXPERTS) for t in ([targets] if isinstance(targets, str) else targets)):
            check_for_experts(self)
        if self.layers_to_transform is not None and (
            not self.layers_to_transform or min(self.layers_to_transform) < 0
        ):
            raise ConfigError(
                tr(
                    "`layers_to_transform` is {layers_to_transform}; list block numbers "
                    "from 0, or leave it out to adapt every block",
                    layers_to_transform=self.layers_to_transform,
                )
            )
        if not (_is_finite(self.loraplus_lr_ratio) and self.loraplus_lr_ratio > 0):
            raise ConfigError(
                tr(
                    "`loraplus_lr_ratio` is {loraplus_lr_ratio}; it must be above 0 (1 is "
                    "plain LoRA, 16 is usual for LoRA+)",
                    loraplus_lr_ratio=self.loraplus_lr_ratio,
                )
            )
        if not (_is_finite(self.neftune_alpha) and self.neftune_alpha >= 0):
            raise ConfigError(
                tr(
                    "`neftune_alpha` is {neftune_alpha}; it must be 0 (no noise) or more",
                    neftune_alpha=self.neftune_alpha,
                )
            )

    @property
    def scale(self) -> float:
        """The factor of the update B A."""
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)

    def at(self, *paths: str) -> "LoRAConfig":
        """Return the settings of a layer: patterns are looked up and then dropped.

        Args:
            paths: The path of the layer; for a parameter of experts, its own path and theirs.
        """

        def matching(pattern: dict) -> Iterator[str]:
            return (name for name in pattern if any(ends_with(path, name) for path in paths))

        r = next((self.rank_pattern[name] for name in matching(self.rank_pattern)), self.r)
        alphas = (self.alpha_pattern[name] for name in matching(self.alpha_pattern))
        alpha = next(alphas, self.lora_alpha)
        return replace(self, r=r, lora_alpha=alpha, rank_pattern={}, alpha_pattern={})


def check_for_experts(config: LoRAConfig) -> None:
    """Check that the settings suit adapters on experts, which have neither dropout nor variants.

    Raises:
        ConfigError: They have one of them.
    """
    if config.variant != "lora":
        raise ConfigError(
            tr(
                "`target_modules` has experts, which take no variant, and `variant` is "
                "{variant}: set `variant` to lora, or take experts out of `target_modules`",
                variant=config.variant,
            )
        )
    if config.lora_dropout:
        raise ConfigError(
            tr(
                "`target_modules` has experts, which take no dropout, and `lora_dropout` is "
                "{lora_dropout}: set `lora_dropout` to 0, or take experts out of "
                "`target_modules`",
                lora_dropout=config.lora_dropout,
            )
        )


def _named(name: str, pattern: dict) -> dict:
    return {f"`{name}`[{key!r}]": value for key, value in pattern.items()}


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        # An integer above the largest float.
        return False
