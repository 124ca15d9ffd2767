"""The parts of a memory estimate, for base models that are not on this machine."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import SMALL, make_model
from transformers import AutoConfig, AutoModelForCausalLM

from lit.device import memory
from lit.preflight import checkup
from lit.preflight.estimate import (
    KEPT,
    MemoryEstimate,
    estimate_memory,
    estimate_model_memory,
)
from lit.train.module import LoRAModule
from lora.config import LoRAConfig
from lora.injection import ParameterCount
from lora.targets import linear_layers

BASES = {
    "llama, untied": ("llama", {"tie_word_embeddings": False}),
    "qwen2, tied": ("qwen2", {"tie_word_embeddings": True}),
}
SIZES = SMALL | {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3}


def estimated(
    base: str,
    tokens: int,
    dtype: torch.dtype = torch.bfloat16,
    quantize: str | None = None,
    device: str = "cuda",
    **stored: object,
) -> MemoryEstimate:
    """Estimate the memory of a run: one row in a micro-batch, 50 labels."""
    family, changes = BASES[base]
    config = AutoConfig.for_model(family, **(SIZES | {"head_dim": 16} | changes | stored))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    lora = LoRAConfig(r=4, target_modules="all-linear")
    module = LoRAModule(base="", lora=lora, quantize=quantize)
    return estimate_model_memory(model, module, [tokens], 50, torch.device(device))


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


def test_a_folder_in_4_bits_is_estimated_as_one_that_is_quantized_while_loading() -> None:
    stored = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "quant_method": "bitsandbytes"}
    quantized = estimated("qwen2, tied", 64, quantize="nf4")
    assert estimated("qwen2, tied", 64, quantization_config=stored) == quantized


@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_freed_blocks_that_glibc_keeps_are_part_of_the_peak_on_a_cpu(
    system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "sys", SimpleNamespace(platform=system))
    on_gpu, on_cpu = (
        estimated("qwen2, tied", 640, torch.float32, device=name) for name in ("cuda", "cpu")
    )
    kept, activations = on_cpu.peak - on_gpu.peak, part(on_cpu, "activations")
    assert kept > KEPT * activations if system == "linux" else kept == 0


GB = 10**9
DEVICE, HOST = "needs about 20.0 GB of memory, but the device", "9.0 GB of memory, but this machine"


@pytest.mark.parametrize(
    ("device", "processes", "gpu", "host", "found"),
    [
        ("cuda", 1, 24, 12, []),
        ("cuda", 1, 16, 12, [f"the run {DEVICE} has 16.0 GB: lower"]),
        ("cuda", 1, 24, 8, [f"the run needs about {HOST} has 8.0 GB: close other programs"]),
        ("cuda", 2, 24, 12, [f"each of 2 processes needs about {HOST} has 12.0 GB: close"]),
        ("cuda", 2, 16, 12, [f"the run {DEVICE}", f"about {HOST}"]),
        ("cpu", 1, 0, 24, []),
        ("cpu", 2, 0, 24, [f"each of 2 processes {DEVICE} has 24.0 GB"]),
    ],
)
def test_the_memory_of_the_device_and_of_the_machine_are_both_compared(
    device: str,
    processes: int,
    gpu: int,
    host: int,
    found: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    amounts = {"cuda": gpu * GB, "cpu": host * GB}
    monkeypatch.setattr(checkup, "total_memory", lambda where: amounts[where.type])
    strategy = SimpleNamespace(root_device=torch.device(device))
    trainer = SimpleNamespace(strategy=strategy, num_devices=processes)
    estimate = MemoryEstimate(
        ParameterCount(1, 2), {"all": 20 * GB}, 12 * GB, 0 if device == "cpu" else 9 * GB
    )
    findings = checkup.memory_findings(SimpleNamespace(trainer=trainer), estimate)
    assert len(findings) == len(found)
    for finding, text in zip(findings, found, strict=True):
        assert text in finding.text


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32])
def test_frozen_layers_in_bfloat16_are_kept_in_float32_only_where_that_is_stored(
    stored: torch.dtype, tmp_path: Path
) -> None:
    model = make_model("llama").to(stored)
    model.save_pretrained(tmp_path)
    module = LoRAModule(base=str(tmp_path), lora=LoRAConfig(r=4))

    def estimate(precision: str) -> MemoryEstimate:
        return estimate_memory(module, precision, [64], 50, torch.device("cpu"))

    wide, frozen = estimate("32-true"), estimate("bf16-frozen")
    layers = sum(layer.weight.numel() for layer in linear_layers(model).values())
    assert part(wide, "weights") - part(frozen, "weights") == 2 * layers
    kept = {torch.bfloat16: 0, torch.float32: 4 * layers}[stored]
    assert frozen.parts.get("weights in float32, too", 0) == kept
    assert (frozen.loading > part(wide, "weights")) == (stored == torch.bfloat16)
    assert part(frozen, "activations") == pytest.approx(part(wide, "activations"), rel=0.1)
