"""The doctor: its page, and that a fault in a machine's arithmetic fails its check."""

from pathlib import Path

import pytest
import torch

from lit import doctor
from lit.diagnosis import checks, numbers
from lit.diagnosis.checks import CHECKS
from lit.diagnosis.machine import Machine, SkippedError, run_check
from lit.diagnosis.page import describe, render
from lit.diagnosis.sample import SMALL
from lit.model.loss import summed_loss
from lit.packing.hidden_states import hidden_states

ARITHMETIC = {
    # the check, what is replaced, by what
    "packed rows equal single rows": (
        "hidden_states",
        lambda *given: 1.01 * hidden_states(*given),
        "llama float32 differs by",
    ),
    "loss and gradient equal plain cross entropy": (
        "summed_loss",
        lambda *given: 1.01 * summed_loss(*given),
        "loss float32 differs by",
    ),
    "dropout equals the plain formula": (
        "drop",
        lambda x, dropout: x,
        "output differs by",
    ),
}


def machine(folder: Path) -> Machine:
    return Machine(torch.device("cpu"), folder, SMALL)


@pytest.mark.parametrize("name", ARITHMETIC)
def test_right_numbers_pass_and_wrong_ones_fail_with_their_difference(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    passed = run_check(name, CHECKS[name], machine(tmp_path))
    assert passed.result == "passed", passed.text
    function, wrong, text = ARITHMETIC[name]
    monkeypatch.setattr(numbers, function, wrong)
    failed = run_check(name, CHECKS[name], machine(tmp_path))
    assert failed.result == "failed"
    assert text in failed.text


def test_a_check_that_raises_fails_alone_and_one_that_does_not_apply_is_skipped(tmp_path: Path):
    def broken(_: Machine) -> str:
        raise RuntimeError("no kernel image\nis available")

    def absent(_: Machine) -> str:
        raise SkippedError("no such library")

    assert run_check("a", broken, machine(tmp_path))[1:3] == (
        "failed",
        "RuntimeError: no kernel image",
    )
    assert run_check("b", absent, machine(tmp_path))[1:3] == ("skipped", "no such library")


@pytest.mark.usefixtures("brief")
def test_the_doctor_trains_and_writes_a_page_without_paths_or_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    quick = {name: CHECKS[name] for name in ("training with the base in 4 bits",)}
    monkeypatch.setattr(checks, "CHECKS", quick)
    page = tmp_path / "page.md"
    assert doctor.main(["--output", str(page)]) == 0
    text = page.read_text("utf-8")
    assert text.startswith("# lit-lora on CPU, ")
    assert "| training with the base in 4 bits | passed | nf4 5." in text
    assert str(Path.cwd()) not in text
    assert str(tmp_path) not in text
    assert f"wrote  {page}" in capsys.readouterr().out
    # An older page is replaced, and a person's file is not.
    assert doctor.main(["--device", "tpu", "--output", str(page)]) == 2
    page.write_text("mine", "utf-8")
    assert doctor.main(["--output", str(page)]) == 2
    assert page.read_text("utf-8") == "mine"
    assert "is not a page of this command: give another --output" in capsys.readouterr().err


def test_a_page_names_what_failed(tmp_path: Path):
    def wrong(_: Machine) -> str:
        raise ValueError("a | b")

    text = render(describe(torch.device("cpu")), [run_check("x", wrong, machine(tmp_path))])
    assert "Failed: x." in text
    assert "| x | failed | ValueError: a / b |" in text
