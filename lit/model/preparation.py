"""An adapted model, ready to train: loaded, adapted, made faster, and checked."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from data.planning.batch import collate
from data.types import IGNORE, Example
from lit.fast_layers.table import FAST_LAYERS, use_fast_layers
from lit.model.attention import pack
from lit.model.base import load_base
from lit.model.loss import check_loss
from lit.run.console import print_rank0
from lora.base import is_quantized
from lora.config import ConfigError, LoRAConfig
from lora.full_layers import tied_groups
from lora.injection import inject
from lora.targets import linear_layers

PROBE_LENGTHS = (16, 8)
"""Tokens of the rows on which a model is checked: few, since every run waits for it."""


@dataclass(frozen=True)
class ModelSpec:
    """How to make an adapted model; the fields are those of ``LoRAModule``."""

    base: str
    revision: str | None
    quantize: str | None
    lora: LoRAConfig
    gradient_checkpointing: bool
    fast_layers: bool
    seed: int

    def make(self, dtype: torch.dtype, device: torch.device, sharded: bool) -> PreTrainedModel:
        """Load the base, put the adapters on, and use fast layers.

        Args:
            dtype: The dtype of the base.
            device: The device to load it on.
            sharded: Whether its weights will be sharded among ranks.

        Raises:
            ConfigError: It does not load, does not suit the adapter, or is quantized and sharded.
        """
        print_rank0(f"model  loading {self.base} …")
        model = load_base(self.base, self.revision, dtype, self.quantize, device)
        if sharded and any(is_quantized(layer) for layer in linear_layers(model).values()):
            raise ConfigError(
                f"{self.base} is stored quantized, and this trainer.strategy shards only dense "
                "weights: set trainer.strategy to ddp, or give the 16-bit model that it was made "
                "from"
            )
        # A is drawn from the seed alone, whatever was drawn before.
        torch.manual_seed(self.seed)
        inject(model, self.lora)
        if self.fast_layers:
            use_fast_layers(model, self._fast_kinds(sharded))
        for paths in tied_groups(model):
            print_rank0(f"model  {' and '.join(paths)} are one matrix and train together")
        return model

    def _fast_kinds(self, sharded: bool) -> list[str]:
        # Recomputing inside a checkpoint gains nothing, and sharding must find plain layers.
        unused = {"gated MLP": self.gradient_checkpointing}
        return [kind for kind in FAST_LAYERS if not unused.get(kind, sharded)]


def probe_examples(vocab_size: int) -> list[Example]:
    """Return a few short rows of tokens that are spread evenly over a vocabulary.

    Every label but a row's first is set. The rows are the same on every rank and in every run.
    """
    total = sum(PROBE_LENGTHS)
    # A step that shares no factor with most vocabulary sizes, so that neighbors are far apart.
    ids = [(1 + 7919 * i * max(1, vocab_size // total)) % vocab_size for i in range(total)]
    rows = [ids[: PROBE_LENGTHS[0]], ids[PROBE_LENGTHS[0] :]]
    return [Example(row, [IGNORE, *row[1:]]) for row in rows]


def check_model(
    call: Callable[..., Any], config: PretrainedConfig, device: torch.device, must_pack: str | None
) -> None:
    """Use packed attention where it is right for a model, and check its loss.

    Args:
        call: Calls a function with the model and further arguments.
        config: The model's config.
        device: The model's device.
        must_pack: A strategy that cannot train models without packed attention, or None.

    Raises:
        ConfigError: The loss differs from the model's own, or packing is needed and impossible.
    """
    examples = probe_examples(config.get_text_config().vocab_size)
    batch = collate(examples).to(device)
    if reason := call(pack, batch):
        if must_pack:
            # Ranks have different numbers of rows and must gather weights equally often.
            raise ConfigError(f"{reason}: trainer.strategy {must_pack} cannot train this model")
        print_rank0(
            f"model  {reason}: rows are computed one by one, which is slower and gives the same "
            "result"
        )
    call(check_loss, collate(examples[-1:]).to(device))
