"""python -m lit.merge: a plain model with equal answers, written completely or not at all."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from conftest import make_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from lit.answering.generation import stream
from lit.answering.sampling import Sampling
from lit.merge import main
from lit.model.base import load_base
from lit.model.tuned import load_tuned
from lora.base import dense_weight
from lora.config import LoRAConfig
from lora.injection import inject, lora_layers
from lora.layer import LoRALinear
from lora.storage.adapter import save_adapter

QUESTION = "Почему деталь отклеилась от стола?"


@pytest.fixture
def adapter(tiny_folder: Path, tmp_path: Path) -> Path:
    """An adapter that changes the model a lot."""
    model = load_base(str(tiny_folder))
    inject(model, LoRAConfig(r=4))
    torch.manual_seed(3)
    for _, layer in lora_layers(model):
        torch.nn.init.normal_(layer.lora_B, std=0.2)
    folder = save_adapter(model, tmp_path / "adapter", str(tiny_folder))
    AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(folder)
    return folder


def test_the_merged_model_in_transformers_gives_the_tuned_answers(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "merged"
    assert main(["--adapter", str(adapter), "--output_dir", str(out)]) == 0
    assert "wrote" in capsys.readouterr().out
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= {
        path.name for path in out.iterdir()
    }
    assert (out / "chat_template.jinja").is_file()
    tuned, tokenizer = load_tuned(adapter)
    merged = AutoModelForCausalLM.from_pretrained(out)
    ids = tokenizer(QUESTION)["input_ids"]
    sampling = Sampling(max_new_tokens=30)
    expected = stream(tuned, tokenizer, ids, sampling, lambda text: None)
    merged_tokenizer = AutoTokenizer.from_pretrained(out)
    assert stream(merged, merged_tokenizer, ids, sampling, lambda text: None) == expected


def test_the_merged_model_stops_in_plain_transformers_where_its_template_ends_a_turn(
    adapter: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    base, end, other = tmp_path / "base", 2, 7
    shutil.copytree(tiny_folder, base)
    for name in ("config.json", "generation_config.json"):
        settings = json.loads((base / name).read_text("utf-8"))
        (base / name).write_text(json.dumps(settings | {"eos_token_id": other}), "utf-8")
    out = tmp_path / "merged"
    assert main(["--adapter", str(adapter), "--output_dir", str(out), "--base", str(base)]) == 0
    merged = AutoModelForCausalLM.from_pretrained(out)
    assert merged.generation_config.eos_token_id == [end, other]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_are_written_in_the_given_dtype(adapter: Path, tmp_path: Path, dtype: str) -> None:
    out = tmp_path / "merged"
    assert main(["--adapter", str(adapter), "--output_dir", str(out), "--dtype", dtype]) == 0
    assert json.loads((out / "config.json").read_text())["dtype"] == dtype
    weights = AutoModelForCausalLM.from_pretrained(out).state_dict().values()
    assert {tensor.dtype for tensor in weights} == {getattr(torch, dtype)}


def test_a_folder_that_is_not_empty_is_not_touched(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "merged"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    assert main(["--adapter", str(adapter), "--output_dir", str(out)]) == 2
    assert "already exists" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_a_relative_base_path_that_leaves_the_working_folder_is_refused(
    adapter: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    settings = json.loads((adapter / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = os.path.relpath(tiny_folder)
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    command = ["--adapter", str(adapter), "--output_dir", str(tmp_path / "merged")]
    assert main(command) == 2
    assert "a path with ..: give it with --base" in capsys.readouterr().err
    assert not (tmp_path / "merged").exists()
    assert main([*command, "--base", str(tiny_folder)]) == 0


def test_a_merged_weight_that_is_not_finite_is_refused(
    adapter: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    base = load_base(str(tiny_folder))
    base.model.layers[0].mlp.up_proj.weight.data[0, 0] = torch.nan
    base.save_pretrained(tmp_path / "broken")
    command = ["--adapter", str(adapter), "--base", str(tmp_path / "broken")]
    assert main([*command, "--output_dir", str(tmp_path / "merged")]) == 2
    assert "up_proj.weight is not finite" in capsys.readouterr().err
    assert not (tmp_path / "merged").exists()


def test_a_merged_model_with_other_logits_is_not_written(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(LoRALinear, "merged_weight", lambda layer: dense_weight(layer.base))
    assert main(["--adapter", str(adapter), "--output_dir", str(tmp_path / "merged")]) == 2
    assert "nothing was written" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if "merged" in path.name] == []


def test_the_modelfile_has_the_template_and_stop_token_of_training(
    adapter: Path, tmp_path: Path
) -> None:
    out = tmp_path / "merged"
    assert main(["--adapter", str(adapter), "--output_dir", str(out), "--ollama"]) == 0
    text = (out / "Modelfile").read_text()
    assert text.startswith("FROM .\n")
    assert "<|im_start|>user\n{{ .Content }}<|im_end|>\n" in text
    assert 'PARAMETER stop "<|im_end|>"\nPARAMETER temperature 0\n' in text


def test_an_embedding_that_trained_apart_from_the_head_is_merged_apart(
    tokenizer_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    base, out = tmp_path / "base", tmp_path / "merged"
    make_model(tie_word_embeddings=True).save_pretrained(base)
    AutoTokenizer.from_pretrained(tokenizer_file).save_pretrained(base)
    model = load_base(str(base))
    inject(model, LoRAConfig(r=4, modules_to_save=["embed_tokens"], ensure_weight_tying=False))
    with torch.no_grad():
        model.get_input_embeddings().trained["weight"].mul_(-1)
    save_adapter(model, tmp_path / "adapter", str(base))
    assert main(["--adapter", str(tmp_path / "adapter"), "--output_dir", str(out)]) == 0
    assert "embed_tokens was trained apart" in "".join(capsys.readouterr())
    merged = AutoModelForCausalLM.from_pretrained(out)
    assert torch.equal(merged.get_input_embeddings().weight, -merged.lm_head.weight)
