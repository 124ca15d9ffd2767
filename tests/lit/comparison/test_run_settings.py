"""The precision of a comparison, on the run's device and on others."""

import pytest

from lit.comparison.run_settings import LoadSettings
from lit.device.device import Traits

AMPERE = Traits("cuda", "NVIDIA A100", (8, 0))
TURING = Traits("cuda", "Tesla T4", (7, 5))
CPU = Traits("cpu", "CPU")

USED = [
    # the run's precision, the device of the comparison, its precision
    ("bf16-mixed", AMPERE, "bf16-mixed"),
    ("bf16-mixed", CPU, "bf16-mixed"),
    ("bf16-frozen", CPU, "bf16-frozen"),
    ("bf16-frozen", AMPERE, "bf16-mixed"),
    ("bf16-mixed", TURING, "16-mixed"),
    ("16-mixed", CPU, "32-true"),
    ("32-true", AMPERE, "32-true"),
]


@pytest.mark.parametrize(("trained", "device", "precision"), USED)
def test_a_comparison_uses_the_precision_of_the_run_or_says_which_other(
    trained: str, device: Traits, precision: str
):
    run = LoadSettings(precision=trained)
    used = run.fitted_to(device, "llama")
    assert used.precision == precision
    assert bool(used.differences(run)) == (precision != trained)
