"""Whole runs on a quantized base."""

import json
import shutil
from pathlib import Path

import pytest

from lit.chat import main as chat
from lit.compare import main as compare
from lit.fit import main as fit
from lit.merge import main as merge


@pytest.mark.parametrize(("kind", "optimizer"), [("nf4", "paged_adamw_8bit"), ("int8", "adamw")])
def test_a_run_on_a_quantized_base_trains_and_its_adapter_merges(
    kind: str, optimizer: str, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("question,answer\n" + "".join(f"Q {i}?,A {i}.\n" for i in range(10)), "utf-8")
    run = tmp_path / "run"
    command = [
        *("--model.base", str(tiny_folder), "--data.path", str(rows), "--output_dir", str(run)),
        *("--model.quantize", kind, "--model.optimizer", optimizer, "--model.lr", "1e-2"),
        *("--trainer.accelerator", "cpu"),
    ]
    assert fit(command) == 0
    printed = capsys.readouterr().out
    assert ("paging needs a GPU" in printed) == (optimizer == "paged_adamw_8bit")
    adapter, out = str(run / "adapter"), str(tmp_path / "merged")
    assert merge(["--adapter", adapter, "--output_dir", out, "--quantize", kind]) == 0
    assert f"on the {kind} base" in capsys.readouterr().out
    # Chat and compare load the base as the run did, also without the run's settings.
    assert chat(["--adapter", adapter, "--prompt", "Q 1?", "--max_new_tokens", "2"]) == 0
    assert f"the base is loaded in {kind}, as when" in capsys.readouterr().err
    alone = shutil.copytree(adapter, tmp_path / "alone" / "adapter")
    few = ["--data", str(rows), "--answers", "1", "--max_new_tokens", "2"]
    assert compare(["--adapter", str(alone), *few]) == 0
    report = json.loads((tmp_path / "alone" / "comparison" / "report.json").read_text("utf-8"))
    assert f"The base is loaded in {kind}, as when the adapter was trained." in report["notes"]
