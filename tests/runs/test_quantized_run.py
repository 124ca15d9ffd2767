"""Whole runs on a base that is quantized while loading, or stored quantized."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from lit.chat import main as chat
from lit.check import main as check
from lit.compare import main as compare
from lit.fit import main as fit
from lit.merge import main as merge
from lora.storage.metadata import read_quantization


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


def test_a_base_that_is_stored_in_4_bits_trains_talks_and_its_adapter_merges_into_the_original(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    stored = AutoModelForCausalLM.from_pretrained(
        tiny_folder, dtype=torch.float32, quantization_config=settings
    )
    base = tmp_path / "base"
    stored.save_pretrained(base)
    AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(base)
    rows = tmp_path / "rows.csv"
    rows.write_text("question,answer\n" + "".join(f"Q {i}?,A {i}.\n" for i in range(10)), "utf-8")
    run = tmp_path / "run"
    command = [
        *("--model.base", str(base), "--data.path", str(rows), "--output_dir", str(run)),
        *("--model.lr", "1e-2", "--trainer.accelerator", "cpu"),
    ]
    assert check(command) == 0
    assert "weights, nf4" in capsys.readouterr().out
    other = ["--output_dir", str(tmp_path / "other"), "--model.quantize", "int8"]
    assert fit([*command, *other]) == 2
    error = capsys.readouterr().err
    assert f"model.quantize is int8, and the weights of {base} are stored in nf4" in error
    assert fit(command) == 0
    adapter = run / "adapter"
    assert read_quantization(adapter) == "nf4"
    assert chat(["--adapter", str(adapter), "--prompt", "Q 1?", "--max_new_tokens", "2"]) == 0
    merged = ["--adapter", str(adapter), "--output_dir", str(tmp_path / "merged")]
    capsys.readouterr()
    assert merge(merged) == 2
    assert "is stored in nf4, and an adapter is merged into 16-bit" in capsys.readouterr().err
    assert merge([*merged, "--base", str(tiny_folder)]) == 0
