"""The exit code and the message of everything that a command can raise."""

import signal

import pytest

from data.types import DataError
from lit.resume.stopping import StoppedError
from lit.run.command import run_command
from lit.train.step_guard import TrainingError
from lora.config import ConfigError
from lora.storage.peft_format import AdapterError

NAMES = {"lr": "model.lr"}
RAISED: dict[str, tuple[BaseException, int, str]] = {
    "a setting": (ConfigError("`lr` is 0"), 2, "error: model.lr is 0\n"),
    "the data": (DataError("`lr` is 0"), 2, "error: model.lr is 0\n"),
    "an adapter's folder": (AdapterError("`lr` is 0"), 2, "error: lr is 0\n"),
    "training": (TrainingError("step 5: loss nan"), 1, "error: step 5: loss nan\n"),
    "a file": (PermissionError(13, "Permission denied", "/x"), 1, "error: /x: Permission denied\n"),
    "memory": (MemoryError(), 1, "error: out of memory\n"),
    "Ctrl-C": (KeyboardInterrupt(), 130, ""),
    "SIGTERM": (
        StoppedError(signal.SIGTERM, saved=True),
        143,
        "SIGTERM: saved. Resume with the same command and --ckpt_path last\n",
    ),
}


@pytest.mark.parametrize("cause", RAISED)
def test_an_error_becomes_an_exit_code_and_one_line(
    cause: str, capsys: pytest.CaptureFixture
) -> None:
    error, code, text = RAISED[cause]

    def body() -> None:
        raise error

    assert run_command(body, NAMES) == code
    assert capsys.readouterr().err == text


@pytest.mark.parametrize(("result", "code"), [(None, 0), (0, 0), (3, 3)])
def test_a_command_that_raises_nothing_returns_its_own_code(
    result: int | None, code: int, capsys: pytest.CaptureFixture
) -> None:
    assert run_command(lambda: result, NAMES) == code
    assert capsys.readouterr().err == ""


def test_an_unexpected_error_ends_the_command_with_1_and_is_raised() -> None:
    ends: list[tuple[int, str]] = []

    def end(code: int, text: str) -> int:
        ends.append((code, text))
        return code

    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 // 0, NAMES, end)
    assert ends == [(1, "")]
