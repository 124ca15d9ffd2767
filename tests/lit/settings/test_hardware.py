"""The precision of a run: chosen for its device, and kept when it resumes."""

from typing import Any

import pytest
from jsonargparse import Namespace

from lit.device.device import Traits
from lit.settings import hardware
from lit.settings.hardware import Hardware
from lora.config import ConfigError

AMPERE = Traits("cuda", "NVIDIA A100", (8, 0))
TURING = Traits("cuda", "Tesla T4", (7, 5))
CPU = Traits("cpu", "CPU")


def config_of(precision: str) -> Any:
    return Namespace(
        trainer=Namespace(accelerator="cpu", devices="auto", precision=precision),
        model=Namespace(base="m", revision=None, quantize=None),
    )


RESUMED = [
    # the device, the settings, the checkpoint, what the run then trains in; None: refused
    (CPU, "auto", "32-true", "32-true"),
    (CPU, "auto", "bf16-mixed", "bf16-mixed"),
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
