"""Every command prints in the encoding of any console."""

import importlib
import io
import sys

import pytest

from lit.run.command import run_command
from tests.adversary.test_commands import BARS, COMMANDS


@pytest.mark.parametrize("encoding", ["cp866", "cp1251", "cp1252", "ascii"])
@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_is_printed_in_a_narrow_encoding(
    command: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding, errors="strict"))
    with pytest.raises(SystemExit) as end:
        importlib.import_module(f"lit.{command}").main(["--help"])
    assert end.value.code in (0, None)
    sys.stdout.flush()
    assert "--help" in raw.getvalue().decode(encoding)


class Console(io.RawIOBase):
    """A console of Windows: it takes UTF-8 from the interpreter's stream, and is no file."""

    def __init__(self) -> None:
        self.shown = b""

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:
        self.shown += bytes(data)
        return len(data)


def test_a_windows_console_keeps_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console()
    stream = io.TextIOWrapper(io.BufferedWriter(console), "utf-8", errors="strict")
    for name in ("stdout", "__stdout__"):
        monkeypatch.setattr(sys, name, stream)
    assert run_command(lambda: print(BARS, "\udcff"), {}) == 0
    assert sys.stdout is stream
    assert console.shown.decode() == f"{BARS} ?\n"
