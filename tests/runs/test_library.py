"""The scripts of docs/library.md run as they are printed, with a small model and few rows."""

import json
import re
import runpy
from pathlib import Path

import pytest
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "library.md").read_text("utf-8")
SCRIPTS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
BASE, ROWS = "models/SmolLM2-135M-Instruct", "data/corpora/printing3d.en.jsonl"


class Run:
    """Runs a script of the page in a folder of its own.

    Args:
        folder: The current folder of the script; its path is absolute.
        base: The model in place of the page's.
        printed: Captures what the script prints.
    """

    def __init__(self, folder: Path, base: Path, printed: pytest.CaptureFixture) -> None:
        self.folder, self.base, self.printed = folder, base, printed

    def __call__(self, script: str) -> str:
        """Run a script on ten rows and return what it prints."""
        rows = [{"question": f"Question {i}?", "answer": "Sixty degrees."} for i in range(10)]
        file = self.folder / "rows.jsonl"
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
        assert BASE in script
        path = self.folder / "script.py"
        path.write_text(script.replace(BASE, str(self.base)).replace(ROWS, str(file)))
        runpy.run_path(str(path), run_name="__main__")
        return self.printed.readouterr().out


@pytest.fixture
def run(
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> Run:
    """Run a script in tmp_path."""
    monkeypatch.chdir(tmp_path)
    return Run(tmp_path, tiny_folder, capsys)


def learned(adapter: Path) -> bool:
    """Return whether B of an adapter is not zero."""
    tensors = load_file(adapter / "adapter_model.safetensors")
    return all(value.any() for name, value in tensors.items() if "lora_B" in name)


def test_the_page_has_three_short_scripts() -> None:
    assert len(SCRIPTS) == 3
    for script in SCRIPTS:
        assert len([line for line in script.splitlines() if line.strip()]) <= 35


def test_the_training_loop_learns_saves_and_merges(
    run: Run, tmp_path: Path, tiny_folder: Path
) -> None:
    losses = re.findall(r"loss ([\d.]+)", run(SCRIPTS[0]))
    assert float(losses[-1]) < float(losses[0])
    assert learned(tmp_path / "runs/loop/adapter")
    merged = load_file(tmp_path / "runs/loop/merged/model.safetensors")
    assert merged.keys() == load_file(tiny_folder / "model.safetensors").keys()


def test_the_trainer_takes_a_callback_and_a_metric(run: Run, tmp_path: Path) -> None:
    printed = run(SCRIPTS[1])
    for name in ("train/loss", "val/loss", "val/likely"):
        assert f"'{name}': '" in printed
    assert learned(tmp_path / "runs/trainer/adapter")
    assert (tmp_path / "runs/trainer/adapter/tokenizer_config.json").is_file()


def test_the_module_trains_on_other_data(run: Run) -> None:
    (loss,) = re.findall(r"^loss ([\d.]+)$", run(SCRIPTS[2]), re.MULTILINE)
    assert 0 < float(loss) < 6


@pytest.mark.parametrize("package", ["lora", "data", "lit"])
def test_the_page_lists_every_public_name(package: str) -> None:
    (row,) = re.findall(rf"^\| `{package}` \| (.*) \|$", PAGE, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", row)) == set(__import__(package).__all__)
