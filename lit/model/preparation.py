"""What is done to a base model before it trains."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from data.batch import collate
from data.types import Example
from lit.model.attention import pack
from lit.model.base import load_base
from lit.model.fused_norm import fuse
from lit.model.gated_mlp import keep_less
from lit.model.loss import check_loss
from lit.model.onednn_linear import hasten
from lit.run.console import print_rank0
from lora.config import ConfigError, LoRAConfig
from lora.full_layers import tied_groups
from lora.inject import inject


@dataclass(frozen=True)
class ModelSpec:
    """An adapted model, before it is made; the fields are those of ``LoRAModule``."""

    base: str
    revision: str | None
    quantize: str | None
    lora: LoRAConfig
    gradient_checkpointing: bool
    seed: int

    def make(self, dtype: torch.dtype, device: torch.device, sharded: bool) -> PreTrainedModel:
        """Load the base and put the adapters on.

        Args:
            dtype: Of the base.
            device: Where to.
            sharded: Whether its weights will be divided among ranks.
        """
        model = load_base(self.base, self.revision, dtype, self.quantize, device)
        # A is drawn from the seed alone, whatever was drawn before.
        torch.manual_seed(self.seed)
        inject(model, self.lora)
        if not self.gradient_checkpointing:
            keep_less(model)
        if not sharded:
            hasten(model)
            fuse(model)
        for paths in tied_groups(model):
            print_rank0(f"model  {' and '.join(paths)} are one matrix: they train together")
        return model


def check(
    call: Callable[..., Any], examples: list[Example], device: torch.device, must_pack: str | None
) -> None:
    """Set an adapted model to packed attention if that is right for it, and check its loss.

    Args:
        call: Calls a function of the model and of more.
        examples: A few short rows.
        device: Of the model.
        must_pack: The strategy that cannot train a model that cannot be packed, if there is one.

    Raises:
        ConfigError: The loss is not the model's own, or it must be packed and cannot be.
    """
    batch = collate(examples).to(device)
    if reason := call(pack, batch):
        if must_pack:
            # Ranks have different numbers of rows, and must gather equally often.
            raise ConfigError(f"{reason}: trainer.strategy {must_pack} cannot train this model")
        print_rank0(f"model  {reason}: rows are computed one by one, slower, to the same result")
    call(check_loss, collate(examples[-1:]).to(device))
