"""The help of lit.fit and lit.check: few settings, or every one; a line each."""

import importlib

import pytest

from lit.settings.arguments import parse
from lit.settings.help_page import HIDDEN, REQUIRED

LEAKS = ("``", ":class:", "lightning.", "lora.injection", "==SUPPRESS==", "Union[", "type:")


@pytest.fixture(scope="module")
def known() -> set[str]:
    """The names of all settings."""
    required = ["--model.base", "m", "--data.path", "rows.jsonl", "--trainer.accelerator", "cpu"]
    return {*parse(required).parser.get_defaults().keys()}


@pytest.mark.parametrize("command", ["fit", "check"])
@pytest.mark.parametrize("flag", ["-h", "--help", "--help_all"])
def test_help_has_one_line_for_each_setting_and_the_required_ones_first(
    flag: str, command: str, known: set[str], capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as end:
        importlib.import_module(f"lit.{command}").main(["--data.batch_size", "2", flag])
    assert end.value.code in (0, None)
    page = capsys.readouterr().out
    listed = [line for line in page.splitlines() if line.startswith("  --")]
    names = [line.split()[0].removeprefix("--") for line in listed]
    assert names[:2] == [*REQUIRED]
    assert len(names) == len(set(names))
    if flag == "--help_all":
        assert set(names) == known - HIDDEN | {"config", "lang"}
    else:
        assert set(names) <= known | {"config", "lang"}
        assert 20 <= len(names) <= 31
    assert max(map(len, page.splitlines())) <= 125
    assert [leak for leak in LEAKS if leak in page] == []
    assert all(len(line) > 48 for line in listed)
    assert "  --data.batch_size 4  " in page
    assert f"python -m lit.{command} " in page


def test_no_hidden_setting_is_unknown(known: set[str]) -> None:
    assert {name for name in HIDDEN if name != "checkpoint.dirpath"} <= known
