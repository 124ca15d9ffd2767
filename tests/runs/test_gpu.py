"""What only a GPU can show, by the checks of lit.doctor; skipped where there is none."""

from pathlib import Path

import pytest

from lit.device.device import choose_device
from lit.diagnosis.checks import CHECKS
from lit.diagnosis.machine import Machine, run_check
from lit.diagnosis.sample import MEDIUM

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(choose_device("auto").type == "cpu", reason="needs a GPU"),
]


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_of_the_doctor_passes_on_the_gpu(name: str, tmp_path: Path) -> None:
    device = choose_device("auto")
    outcome = run_check(name, CHECKS[name], Machine(device, tmp_path, MEDIUM))
    assert outcome.result in ("passed", "skipped"), outcome.text
    print(outcome.text)
