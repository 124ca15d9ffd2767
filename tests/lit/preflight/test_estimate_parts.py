"""The parts of a memory estimate, for base models that are not on this machine."""

import pytest
import torch
from conftest import SMALL
from transformers import AutoConfig, AutoModelForCausalLM

from lit.preflight.estimate import MemoryEstimate, estimate_model_memory
from lit.train.module import LoRAModule
from lora.config import LoRAConfig

BASES = {
    "llama, untied": ("llama", {"tie_word_embeddings": False}),
    "qwen2, tied": ("qwen2", {"tie_word_embeddings": True}),
}
SIZES = SMALL | {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 6}


def estimated(
    base: str, tokens: int, dtype: torch.dtype = torch.bfloat16, quantize: str | None = None
) -> MemoryEstimate:
    """Estimate the memory of a run on a GPU: one row in a micro-batch, 50 labels."""
    family, changes = BASES[base]
    config = AutoConfig.for_model(family, **(SIZES | {"head_dim": 16} | changes))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    lora = LoRAConfig(r=4, target_modules="all-linear")
    module = LoRAModule(base="", lora=lora, quantize=quantize)
    return estimate_model_memory(model, module, [tokens], 50, torch.device("cuda"))


def part(estimate: MemoryEstimate, name: str) -> int:
    return next(size for key, size in estimate.parts.items() if key.startswith(name))


@pytest.mark.parametrize("base", BASES)
def test_activations_are_proportional_to_tokens(base: str) -> None:
    few, many = (part(estimated(base, tokens), "activations") for tokens in (64, 640))
    assert many == 10 * few > 0


@pytest.mark.parametrize("base", BASES)
def test_fewer_bits_lower_the_weights_and_not_what_trains(base: str) -> None:
    whole = estimated(base, 64, torch.float32)
    half, quantized = estimated(base, 64), estimated(base, 64, quantize="nf4")
    weights = [part(estimate, "weights") for estimate in (whole, half, quantized)]
    assert weights[0] == 2 * weights[1] > 2 * weights[2]
    for name in ("adapter", "gradients", "optimizer states"):
        assert len({part(estimate, name) for estimate in (whole, half, quantized)}) == 1
    # One tensor at a time is on the device in bf16, while the next is read.
    largest = 2 * SIZES["vocab_size"] * SIZES["hidden_size"]
    assert quantized.loading == weights[2] + 2 * largest < weights[1]
    assert quantized.host == 2 * largest
    assert whole.loading == 0
