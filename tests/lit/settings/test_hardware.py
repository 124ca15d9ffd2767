"""The precision of a run: chosen for its device, and kept when it resumes."""

from typing import Any

import pytest
from conftest import FAMILIES
from jsonargparse import Namespace
from transformers import AutoConfig

from lit.device.device import Traits
from lit.settings import hardware
from lit.settings.hardware import Hardware
from lora.config import ConfigError

AMPERE = Traits("cuda", "NVIDIA A100", (8, 0))
TURING = Traits("cuda", "Tesla T4", (7, 5))
CPU = Traits("cpu", "CPU")


def config_of(precision: str, quantize: str | None = None, strategy: str = "auto") -> Any:
    return Namespace(
        trainer=Namespace(
            accelerator="cpu", devices="auto", precision=precision, strategy=strategy
        ),
        model=Namespace(base="m", revision=None, quantize=quantize),
    )


@pytest.fixture(autouse=True)
def base(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small base."""
    config = AutoConfig.for_model("llama", **FAMILIES["llama"])
    monkeypatch.setattr(hardware, "read_base_config", lambda *_: config)


RESUMED = [
    # the device, the settings, the checkpoint, what the run then trains in; None: refused
    (CPU, "auto", "32-true", "32-true"),
    (CPU, "auto", "bf16-mixed", "bf16-mixed"),
    (CPU, "auto", "bf16-frozen", "bf16-frozen"),
    (AMPERE, "auto", "bf16-frozen", None),
    (CPU, "auto", "16-mixed", None),
    (TURING, "auto", "32-true", "32-true"),
    (TURING, "auto", "bf16-mixed", None),
    (AMPERE, "auto", "32-true", "32-true"),
    # What a person set is compared with the checkpoint by check_settings.
    (CPU, "32-true", "bf16-mixed", "32-true"),
]


@pytest.mark.parametrize(("device", "asked", "checkpoint", "used"), RESUMED)
def test_a_run_resumes_in_the_precision_of_its_checkpoint_where_it_was_left_open(
    device: Traits, asked: str, checkpoint: str, used: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "weakest_traits", lambda *_: device)
    config = config_of(asked)
    found = Hardware(config)
    assert config.trainer.precision == found.precision.value != "auto"
    if used is None:
        with pytest.raises(ConfigError, match=f"trains in {checkpoint}, and .* cannot: resume on"):
            found.resume_in(checkpoint)
    else:
        found.resume_in(checkpoint)
        assert config.trainer.precision == found.precision.value == used


@pytest.mark.parametrize(("quantize", "strategy"), [("nf4", "auto"), (None, "fsdp2")])
def test_a_precision_for_dense_bases_is_refused_before_others_are_loaded(
    quantize: str | None, strategy: str
) -> None:
    with pytest.raises(ConfigError, match=r"bf16-frozen, .* set `precision` to 32-true"):
        Hardware(config_of("bf16-frozen", quantize, strategy))


TIMED = [
    # settings, quantization, strategy, whether the CPU has units for bfloat16, the precision
    ("auto", None, "auto", True, "bf16-frozen"),
    ("auto", None, "ddp", True, "bf16-frozen"),
    ("auto", None, "single_device", True, "bf16-frozen"),
    ("auto", None, "fsdp2", True, "32-true"),
    ("auto", None, "lit.distributed.sharding.ShardedStrategy", True, "32-true"),
    ("auto", "nf4", "auto", True, "32-true"),
    ("auto", None, "auto", False, "32-true"),
    ("32-true", None, "auto", True, "32-true"),
]


@pytest.mark.parametrize(("asked", "quantize", "strategy", "units", "used"), TIMED)
def test_a_cpu_is_timed_where_that_decides_the_precision_and_the_reason_says_so(
    asked: str,
    quantize: str | None,
    strategy: str,
    units: bool,
    used: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked_for: list[int] = []
    monkeypatch.setattr(hardware, "weakest_traits", lambda *_: Traits("cpu", "CPU", cpu_bf16=units))
    monkeypatch.setattr(
        hardware, "bf16_gain", lambda layers: asked_for.append(len([*layers])) or 2.5
    )
    found = Hardware(config_of(asked, quantize, strategy))
    assert found.precision.value == used
    assert asked_for == ([14] if used == "bf16-frozen" else [])
    assert ("2.5 times" in found.precision.reason) == bool(asked_for)
