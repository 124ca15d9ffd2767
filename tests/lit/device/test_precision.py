"""The precision and the dtype that suit a device and a model, by tables."""

from dataclasses import replace

import pytest
import torch
from test_device import AMPERE, APPLE, CPU, PASCAL, TURING

from lit.device.device import Traits
from lit.device.precision import (
    MIN_BF16_GAIN,
    PRECISIONS,
    check_precision,
    choose_dtype,
    choose_precision,
    slow_precision,
)
from lora.config import ConfigError

CHOSEN = [
    (CPU, "llama", False, "32-true"),
    (CPU, "llama", True, "32-true"),
    (APPLE, "llama", False, "32-true"),
    (AMPERE, "llama", False, "bf16-mixed"),
    (AMPERE, "llama", True, "bf16-true"),
    (AMPERE, "gemma3_text", False, "bf16-mixed"),
    (TURING, "llama", False, "16-mixed"),
    (TURING, "llama", True, "16-mixed"),
    (TURING, "gemma3_text", False, "32-true"),
    (TURING, "gpt_oss", True, "32-true"),
    (PASCAL, "qwen2", False, "16-mixed"),
]


@pytest.mark.parametrize(("device", "model", "quantized", "precision"), CHOSEN)
def test_the_precision_suits_the_device_and_the_model(
    device: Traits, model: str, quantized: bool, precision: str
):
    choice = choose_precision(device, model, quantized)
    assert choice.value == precision
    check_precision(choice.value, device, model)


@pytest.mark.parametrize(
    ("quantized", "gain", "precision"),
    [
        (False, None, "32-true"),
        (False, MIN_BF16_GAIN - 0.01, "32-true"),
        (False, MIN_BF16_GAIN, "bf16-frozen"),
        (True, 9.0, "32-true"),
    ],
)
def test_a_cpu_trains_in_bfloat16_where_its_products_are_clearly_faster(
    quantized: bool, gain: float | None, precision: str
) -> None:
    assert choose_precision(CPU, "llama", quantized, gain).value == precision
    # Another device is not asked.
    assert choose_precision(APPLE, "llama", quantized, gain).value == "32-true"


REFUSED = {
    ("16-mixed", CPU, "llama"): "needs a GPU, .* set `precision` to 32-true",
    ("bf16-mixed", TURING, "llama"): r"Tesla T4 \(.*7.5\) has no bfloat16 units: .* to 16-mixed",
    ("bf16-true", PASCAL, "llama"): "set `precision` to 16-mixed",
    ("bf16-true", TURING, "gemma3_text"): "set `precision` to 32-true",
    ("16-mixed", TURING, "gemma3_text"): "overflows in gemma3_text models: .* to 32-true",
    ("bf16-frozen", AMPERE, "llama"): "is for CPUs: set `precision` to bf16-mixed",
    ("bf16-frozen", TURING, "llama"): "is for CPUs: set `precision` to 16-mixed",
    ("bf16-frozen", APPLE, "llama"): "is for CPUs: set `precision` to 32-true",
    ("16-mixed", AMPERE, "qwen3_moe"): "set `precision` to bf16-mixed",
}


@pytest.mark.parametrize("model", ["llama", "gemma3_text", "qwen3_moe"])
@pytest.mark.parametrize("device", [CPU, APPLE, AMPERE, TURING, PASCAL], ids=lambda d: d.name)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_precision_is_refused_exactly_where_it_cannot_work(
    precision: str, device: Traits, model: str
):
    overflows = model != "llama"
    emulated = device in (TURING, PASCAL)
    works = {
        "32-true": True,
        "bf16-frozen": device == CPU,
        "16-mixed": device != CPU and not overflows,
        "bf16-mixed": not emulated,
        "bf16-true": not emulated,
    }[precision]
    if works:
        check_precision(precision, device, model)
    else:
        with pytest.raises(ConfigError, match=REFUSED.get((precision, device, model), "")):
            check_precision(precision, device, model)


GB = 10**9
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
LOADED = [
    # device, stored dtype, model, parameters, memory of the device, dtype
    (CPU, BF16, "llama", GB, 16 * GB, FP32),
    (CPU, BF16, "llama", 7 * GB, 24 * GB, BF16),
    (CPU, FP16, "llama", 7 * GB, None, FP32),
    (CPU, FP32, "llama", 7 * GB, GB, FP32),
    (AMPERE, BF16, "llama", 7 * GB, 40 * GB, BF16),
    (AMPERE, FP32, "llama", GB, 40 * GB, FP32),
    (TURING, BF16, "llama", GB, 15 * GB, FP16),
    (TURING, FP16, "llama", GB, 15 * GB, FP16),
    (TURING, BF16, "gemma3_text", GB, 15 * GB, FP32),
    (APPLE, BF16, "llama", GB, 15 * GB, BF16),
    (APPLE, FP16, "gemma3_text", GB, 15 * GB, FP32),
    (AMPERE, FP16, "gemma3_text", GB, 15 * GB, BF16),
]


@pytest.mark.parametrize(("device", "stored", "model", "parameters", "memory", "dtype"), LOADED)
def test_a_model_that_only_answers_is_loaded_as_the_device_needs(
    device: Traits,
    stored: torch.dtype,
    model: str,
    parameters: int,
    memory: int | None,
    dtype: torch.dtype,
):
    assert choose_dtype(device, stored, model, parameters, memory)[0] == dtype


@pytest.mark.parametrize("device", [CPU, replace(CPU, cpu_bf16=False), APPLE, AMPERE])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_bfloat16_on_a_cpu_without_its_units_is_slow(precision: str, device: Traits) -> None:
    lacks = device.kind == "cpu" and not device.cpu_bf16
    said = slow_precision(precision, device)
    assert bool(said) == (lacks and precision.startswith("bf16"))
    assert not said or "use 32-true" in said
