"""The scripts of docs/library.md run as they are printed, with a small model and few rows."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "library.md").read_text("utf-8")
SCRIPTS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
BASE, ROWS = "models/SmolLM2-135M-Instruct", "data/corpora/printing3d.en.jsonl"


def run(script: str, folder: Path, base: Path) -> str:
    """Run a script in a folder and return what it prints."""
    rows = [{"question": f"Question {i}?", "answer": "Sixty degrees."} for i in range(10)]
    file = folder / "rows.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    assert BASE in script
    (folder / "script.py").write_text(script.replace(BASE, str(base)).replace(ROWS, str(file)))
    result = subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "HF_DATASETS_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def learned(adapter: Path) -> bool:
    """Return whether B of an adapter is not zero."""
    tensors = load_file(adapter / "adapter_model.safetensors")
    return all(value.any() for name, value in tensors.items() if "lora_B" in name)


def test_the_page_has_three_short_scripts() -> None:
    assert len(SCRIPTS) == 3
    for script in SCRIPTS:
        assert len([line for line in script.splitlines() if line.strip()]) <= 35


def test_the_training_loop_learns_saves_and_merges(tmp_path: Path, tiny_folder: Path) -> None:
    losses = re.findall(r"loss ([\d.]+)", run(SCRIPTS[0], tmp_path, tiny_folder))
    assert float(losses[-1]) < float(losses[0])
    assert learned(tmp_path / "runs/loop/adapter")
    merged = load_file(tmp_path / "runs/loop/merged/model.safetensors")
    assert merged.keys() == load_file(tiny_folder / "model.safetensors").keys()


def test_the_trainer_takes_a_callback_and_a_metric(tmp_path: Path, tiny_folder: Path) -> None:
    printed = run(SCRIPTS[1], tmp_path, tiny_folder)
    for name in ("train/loss", "val/loss", "val/likely"):
        assert f"'{name}': '" in printed
    assert learned(tmp_path / "runs/trainer/adapter")
    assert (tmp_path / "runs/trainer/adapter/tokenizer_config.json").is_file()


def test_the_module_trains_on_other_data(tmp_path: Path, tiny_folder: Path) -> None:
    (loss,) = re.findall(r"^loss ([\d.]+)$", run(SCRIPTS[2], tmp_path, tiny_folder), re.MULTILINE)
    assert 0 < float(loss) < 6


@pytest.mark.parametrize("package", ["lora", "data", "lit"])
def test_the_page_lists_every_public_name(package: str) -> None:
    (row,) = re.findall(rf"^\| `{package}` \| (.*) \|$", PAGE, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", row)) == set(__import__(package).__all__)
