"""What only a GPU can show; skipped where there is none."""

import csv
import json
from pathlib import Path

import pytest
import torch
from conftest import make_model

from lit.fit import main
from lora.storage.adapter import load_adapter

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture
def command(tiny_folder: Path, tmp_path: Path) -> list[str]:
    """A run of 2 epochs on 20 rows; its folder is tmp_path/run."""
    rows = [{"prompt": f"Bed {i}?", "response": f"Bed {i}: {50 + i} degrees."} for i in range(20)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return [
        *("--model.base", str(tiny_folder), "--data.path", str(path), "--trainer.max_epochs", "2"),
        *("--output_dir", str(tmp_path / "run"), "--model.lr", "1e-2", "--data.batch_size", "2"),
        *("--trainer.accelerator", "gpu", "--trainer.devices", "1"),
    ]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "16-mixed"])
@pytest.mark.parametrize("quantize", [None, "nf4"])
@pytest.mark.parametrize("optimizer", ["adamw", "paged_adamw_8bit"])
def test_a_run_on_a_gpu_lowers_the_loss_and_leaves_a_whole_adapter(
    precision: str, quantize: str | None, optimizer: str, command: list[str], tmp_path: Path
) -> None:
    chosen = ["--trainer.precision", precision, "--model.optimizer", optimizer]
    assert main([*command, *chosen, *(["--model.quantize", quantize] if quantize else [])]) == 0
    with (tmp_path / "run" / "metrics.csv").open() as file:
        val = [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]]
    assert val[-1] < val[0]
    load_adapter(make_model(), tmp_path / "run" / "adapter")
