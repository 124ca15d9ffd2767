"""The precisions of a run: the dtype of the base, and of the computation."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal, NamedTuple, get_args

import torch

from lit.device.device import Traits
from lit.messages import tr
from lora.config import ConfigError

AUTO, BF16_FROZEN = "auto", "bf16-frozen"
PRECISIONS = {
    "32-true": torch.float32,
    BF16_FROZEN: torch.float32,
    "16-mixed": torch.float16,
    "bf16-mixed": torch.bfloat16,
    "bf16-true": torch.bfloat16,
}
"""The dtype of the base for each trainer.precision; A and B are float32 in all of them.

In ``bf16-frozen`` a CPU computes the products of frozen layers in bfloat16, all else in float32.
"""
PrecisionName = Literal["auto", "32-true", "bf16-frozen", "16-mixed", "bf16-mixed", "bf16-true"]
"""What trainer.precision takes."""
assert set(get_args(PrecisionName)) == {AUTO, *PRECISIONS}

OVERFLOWING = (
    *("gemma3", "gemma3_text", "gemma3n", "gemma3n_text", "gemma4", "gemma4_text"),
    *("qwen3_5", "qwen3_5_text", "qwen3_moe", "glm4_moe", "gpt_oss"),
)
"""Model types whose activations overflow float16."""


MIN_BF16_GAIN = 1.3
"""A CPU trains in bf16-frozen where products are so many times as fast as in float32.

Where they were 5 times as fast, a step was 1.30 times as fast, and where they were 1.5 times as
fast, 1.28 times (benchmarks/RESULTS.md). A gain at the limit was not measured.
"""
FREE_SHARE = 0.75
"""The share of a CPU's memory that the weights of a model may take."""


class Choice(NamedTuple):
    """A choice that the person left open, and its reason in a few words."""

    value: str
    reason: str


def base_dtype(precision: str) -> torch.dtype:
    """Return the dtype of the base for a precision.

    Raises:
        ConfigError: The precision is unknown.
    """
    if precision not in PRECISIONS:
        raise ConfigError(
            tr(
                "trainer.precision is {precision}; choose {precisions}",
                precision=precision,
                precisions=", ".join(PRECISIONS),
            )
        )
    return PRECISIONS[precision]


def choose_precision(
    device: Traits, model_type: str, quantized: bool, bf16_gain: float | None = None
) -> Choice:
    """Return the precision that suits a device and a model.

    Args:
        device: The device.
        model_type: The base's ``model_type``, which only older CUDA devices need.
        quantized: Whether the base has quantized layers.
        bf16_gain: How many times as fast a CPU computes the model's products in bfloat16 as in
            float32; None if that was not measured.
    """
    if device.kind == "cpu":
        if bf16_gain is None or quantized:
            return Choice("32-true", tr("a CPU computes fastest in float32"))
        if bf16_gain >= MIN_BF16_GAIN:
            reason = tr(
                "products of frozen layers in bfloat16 are {gain:.1f} times as fast",
                gain=bf16_gain,
            )
            return Choice(BF16_FROZEN, reason)
        reason = tr(
            "products in bfloat16 are {gain:.1f} times as fast, and steps gain from {least} times",
            gain=bf16_gain,
            least=MIN_BF16_GAIN,
        )
        return Choice("32-true", reason)
    if device.kind == "mps":
        return Choice("32-true", tr("training in half precision was not tried on an Apple GPU"))
    if device.has_bf16:
        if quantized:
            return Choice(
                "bf16-true", tr("the device has bfloat16 units, and the base is quantized")
            )
        return Choice("bf16-mixed", tr("the device has bfloat16 units"))
    if model_type in OVERFLOWING:
        return Choice(
            "32-true",
            tr(
                "no bfloat16 units, and float16 overflows in {model_type} models",
                model_type=model_type,
            ),
        )
    return Choice("16-mixed", tr("the device has no bfloat16 units"))


def check_precision(precision: str, device: Traits, model_type: str) -> None:
    """Check that a device computes in a precision.

    Args:
        precision: A key of PRECISIONS.
        device: The device.
        model_type: The base's ``model_type``.

    Raises:
        ConfigError: It does not, or the model overflows in it; the message names a precision that
            works.
    """
    problem = ""
    if precision == "16-mixed" and device.kind == "cpu":
        # Lightning would warn, and train in bf16-mixed.
        problem = tr("which needs a GPU, and this run is on a CPU")
    elif precision == BF16_FROZEN and device.kind != "cpu":
        problem = tr("which is for CPUs")
    elif precision == "16-mixed" and model_type in OVERFLOWING:
        problem = tr("and float16 overflows in {model_type} models", model_type=model_type)
    elif precision.startswith("bf16") and device.kind == "cuda" and not device.has_bf16:
        problem = tr("and {device} has no bfloat16 units", device=device)
    if problem:
        better = "bf16-mixed" if device.has_bf16 else choose_precision(device, model_type, False)[0]
        raise ConfigError(
            tr(
                "`precision` is {precision}, {problem}: set `precision` to {better}",
                precision=precision,
                problem=problem,
                better=better,
            )
        )


def needs_dense_base() -> ConfigError:
    """Return the error of a base that cannot be trained in BF16_FROZEN."""
    return ConfigError(
        tr(
            "`precision` is {precision}, which computes dense layers of a whole base in bfloat16, "
            "and this base is quantized or sharded: set `precision` to 32-true",
            precision=BF16_FROZEN,
        )
    )


def slow_precision(precision: str, device: Traits) -> str:
    """Return why a device computes in a precision much slower than in float32, or an empty text."""
    if device.kind != "cpu" or not precision.startswith("bf16") or device.cpu_bf16:
        return ""
    return tr("this CPU has no bfloat16 units, so it is slower than float32: use 32-true")


def choose_dtype(
    device: Traits, stored: torch.dtype, model_type: str, parameters: int, memory: int | None
) -> tuple[torch.dtype, str]:
    """Return the dtype to load a base in that only answers, and the reason in a few words.

    Args:
        device: The device.
        stored: The dtype in which the base is stored.
        model_type: The base's ``model_type``.
        parameters: The number of its parameters.
        memory: Bytes that the device has; None if unknown.
    """
    if device.kind == "cpu":
        if memory is None or 4 * parameters <= FREE_SHARE * memory:
            return torch.float32, tr("a CPU computes fastest in float32")
        return stored, tr("float32 would take {parameters:.1f} GB", parameters=4 * parameters / 1e9)
    emulated = device.kind == "cuda" and not device.has_bf16
    if model_type in OVERFLOWING and (stored == torch.float16 or emulated):
        wide = torch.float32 if emulated or device.kind == "mps" else torch.bfloat16
        return wide, tr("float16 overflows in {model_type} models", model_type=model_type)
    if stored == torch.bfloat16 and emulated:
        return torch.float16, tr("the device has no bfloat16 units")
    if device.kind == "mps":
        return stored, tr("as the model is stored, which was not tried on an Apple GPU")
    return stored, tr("as the model is stored")


def computing_in(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which a trainer of a precision computes a loss."""
    if precision.endswith("-mixed"):
        return torch.autocast(device.type, base_dtype(precision))
    return nullcontext()
