"""val/matching during training, and the best adapter by it."""

import csv
import json
from pathlib import Path

import pytest

from lit.fit import main as fit


def test_matching_is_logged_with_each_validation_and_can_choose_the_adapter(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = tmp_path / "rows.jsonl"
    wrong = ["Nothing."]
    lines = [
        {"prompt": f"What is {i}?", "response": f"{i} things.", "wrong": wrong} for i in range(16)
    ]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    run = tmp_path / "run"
    command = [
        *("--model.base", str(tiny_folder), "--data.path", str(rows), "--trainer.max_epochs", "2"),
        *("--data.val_fraction", "0.5", "--trainer.accelerator", "cpu", "--output_dir", str(run)),
        *("--checkpoint.best_by", "matching"),
    ]
    assert fit(command) == 2
    assert "add --data.val_matching true" in capsys.readouterr().err
    assert fit([*command, "--data.val_matching", "true"]) == 0
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        found = [row for row in csv.DictReader(file) if row["val/loss"]]
    assert [row["step"] for row in found] == ["0", "2", "4"]
    assert all(0 <= float(row["val/matching"]) <= 1 for row in found)
    held = [json.loads(x) for x in (run / "validation.jsonl").read_text("utf-8").splitlines()]
    assert all(row["wrong"] == wrong for row in held)
