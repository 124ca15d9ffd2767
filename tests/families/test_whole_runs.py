"""Families from their folder to a merged model, by the commands, and read by other tools."""

import json
from pathlib import Path

import pytest
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from lit import compare, fit, merge
from lit.exporting.probe import probe_logits, relative_difference
from lit.model.architecture import model_class
from lit.model.peft_note import misread_by_peft
from lit.model.tuned import load_tuned
from tests.families.model import make
from tests.families.table import FAMILIES
from tests.families.wrappers import make_wrapper

ROWS = [
    {"prompt": f"How warm must bed {i} be?", "response": f"Bed {i} must be {50 + i} degrees warm."}
    for i in range(20)
]
MORE_TOKENS = 8
"""Rows of the vocabulary beside the tokenizer's: the tokenizers of some families add tokens."""
TEXT = (*("qwen3_5_text", "qwen3_moe", "gpt_oss", "lfm2", "granitemoehybrid", "phi3", "smollm3"),)
WITH_EYES = ("qwen3_5", "gemma3", "gemma4", "mistral3")
FAST = ("qwen3_5_text", "mistral3")
over_runs = pytest.mark.parametrize(
    "name",
    [pytest.param(x, marks=() if x in FAST else pytest.mark.families) for x in (*TEXT, *WITH_EYES)],
)


def make_folder(name: str, tokenizer_file: Path, folder: Path) -> Path:
    """A model folder as a person has one."""
    rows = 320 + MORE_TOKENS
    vocabulary = {"vocab_size": rows, "vocab_size_per_layer_input": rows}
    if name in WITH_EYES:
        model = make_wrapper(name, **vocabulary)
    else:
        model = make(name, FAMILIES[name].changes | vocabulary)
    model.save_pretrained(folder)
    PreTrainedTokenizerFast.from_pretrained(tokenizer_file).save_pretrained(folder)
    return folder


def rows_in(folder: Path) -> list[str]:
    """Write twenty rows, and return the settings of a short run over them."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    return [
        *("--data.path", str(path), "--output_dir", str(folder / "run")),
        *("--trainer.accelerator", "cpu", "--data.val_fraction", "0.2", "--data.batch_size", "4"),
        *("--trainer.max_steps", "6", "--model.lr", "1e-2", "--model.lora.r", "4"),
    ]


def plain(folder: Path) -> PreTrainedModel:
    """A model as transformers alone loads it."""
    config = AutoConfig.from_pretrained(folder)
    return model_class(config, str(folder)).from_pretrained(folder).eval()


@over_runs
def test_a_family_trains_compares_and_merges_and_other_tools_compute_the_same(
    name: str, tokenizer_file: Path, brief: None, tmp_path: Path, capsys: pytest.CaptureFixture
):
    base = make_folder(name, tokenizer_file, tmp_path / "base")
    adapter, merged = tmp_path / "run" / "adapter", tmp_path / "merged"
    assert fit.main(["--model.base", str(base), *rows_in(tmp_path)]) == 0, capsys.readouterr()
    for command, more in (
        (compare.main, ["--answers", "2", "--max_new_tokens", "3", "--device", "cpu"]),
        (merge.main, ["--output_dir", str(merged)]),
    ):
        assert command(["--adapter", str(adapter), *more]) == 0, capsys.readouterr().err
    assert "Traceback" not in capsys.readouterr().err
    report = json.loads((tmp_path / "run" / "comparison" / "report.json").read_text("utf-8"))
    assert report["loss"]["tuned"] < report["loss"]["base"]
    tuned, tokenizer = load_tuned(adapter)
    expected = probe_logits(tuned, tokenizer)
    untuned = plain(base)
    assert relative_difference(probe_logits(untuned, tokenizer), expected) > 1e-2
    written = AutoTokenizer.from_pretrained(merged)
    assert relative_difference(probe_logits(plain(merged), written), expected) < 1e-3
    assert misread_by_peft(tuned) == []
    peft = PeftModel.from_pretrained(untuned, adapter).eval()
    assert relative_difference(probe_logits(peft, tokenizer), expected) < 1e-3


@over_runs
def test_a_folder_without_one_layer_is_refused(
    name: str, tokenizer_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    base = make_folder(name, tokenizer_file, tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    lost = next(key for key in weights if ".layers.1." in key and "vision" not in key)
    kept = {key: value for key, value in weights.items() if key != lost}
    save_file(kept, base / "model.safetensors", {"format": "pt"})
    assert fit.main(["--model.base", str(base), *rows_in(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "lacks 1 weight" in error
    assert "Traceback" not in error
    assert not (tmp_path / "run" / "adapter").exists()


@pytest.mark.families
def test_a_family_that_transformers_does_not_generate_with_trains_and_is_compared_by_its_losses(
    tokenizer_file: Path, brief: None, tmp_path: Path, capsys: pytest.CaptureFixture
):
    base = make_folder("xlstm", tokenizer_file, tmp_path / "base")
    assert fit.main(["--model.base", str(base), *rows_in(tmp_path)]) == 0
    assert "does not generate with xLSTMForCausalLM" in capsys.readouterr().out
    assert compare.main(["--adapter", str(tmp_path / "run" / "adapter"), "--device", "cpu"]) == 1
    report = json.loads((tmp_path / "run" / "comparison" / "report.json").read_text("utf-8"))
    assert "does not generate with xLSTMForCausalLM" in report["no_answers"]
    assert report["loss"]["tuned"] < report["loss"]["base"]
