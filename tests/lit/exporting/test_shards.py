"""Merging tensor by tensor: the files of the base, the weights of a merge of the whole model."""

import json
from pathlib import Path

import pytest
import torch
from conftest import ADAPTERS, make_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from lit.exporting.merging import merge_into, write_whole
from lit.exporting.shards import INDEX, SINGLE, find_checkpoint, why_not
from lit.model.tuned import load_tuned
from lora.config import LoRAConfig
from lora.injection import inject, trainable_parameters
from lora.storage.adapter import save_adapter

BF16 = torch.bfloat16
KINDS_AND_DTYPES = [
    *((kind, BF16) for kind in ADAPTERS),
    *(
        (kind, dtype)
        for kind in ("lora", "dora, biases", "whole head", "tied embedding")
        for dtype in (torch.float16, torch.float32)
    ),
]
"""Every kind in the dtype of the base; one of each way to merge in the others."""


def make_adapter(
    folder: Path, tokenizer: PreTrainedTokenizerFast, family: str = "llama", **settings: object
) -> Path:
    """Write a sharded base in bfloat16 and an adapter that changes it; return the adapter."""
    model = make_model(**{"family": family} | settings.pop("model", {})).to(BF16)
    model.generation_config.max_new_tokens = 7
    model.save_pretrained(folder / "base", max_shard_size="30KB")
    tokenizer.save_pretrained(folder / "base")
    inject(model, LoRAConfig(r=4, **settings))
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter += 0.05 * torch.randn_like(parameter)
    return save_adapter(model, folder / "adapter", str(folder / "base"))


def weights(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of all files of a folder."""
    return {k: v for path in folder.glob("*.safetensors") for k, v in load_file(path).items()}


@pytest.mark.parametrize(("kind", "dtype"), KINDS_AND_DTYPES)
def test_it_writes_the_weights_of_a_merge_of_the_whole_model(
    kind: str, dtype: torch.dtype, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = ADAPTERS[kind].model or {}
    adapter = make_adapter(tmp_path, tokenizer, model=model, **ADAPTERS[kind].ours)
    merge_into(tmp_path / "merged", adapter, dtype=dtype)
    write_whole(adapter, None, tmp_path / "whole", BF16, dtype)
    merged, whole = weights(tmp_path / "merged"), weights(tmp_path / "whole")
    base = weights(tmp_path / "base")
    # A head that trained apart from its embedding is a tensor of its own.
    apart = {"lm_head.weight"} if "without" in kind or "apart" in kind else set()
    assert merged.keys() == whole.keys() == base.keys() | apart
    for name in base:
        assert merged[name].dtype == dtype
        assert torch.equal(merged[name], whole[name]), name
    assert any(not torch.equal(merged[name], base[name].to(dtype)) for name in base)


def test_the_files_and_the_settings_are_those_of_the_base(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, capsys: pytest.CaptureFixture
) -> None:
    adapter, base, out = make_adapter(tmp_path, tokenizer), tmp_path / "base", tmp_path / "merged"
    merge_into(out, adapter)
    assert "whole model" not in capsys.readouterr().out
    files = {path.name for path in base.iterdir()}
    assert len([name for name in files if name.endswith("safetensors")]) > 2
    assert {path.name for path in out.iterdir()} == files
    for name in files:
        if name.endswith("safetensors"):
            assert load_file(out / name).keys() == load_file(base / name).keys()
    for name in (INDEX, "config.json", "generation_config.json"):
        assert json.loads((out / name).read_text()) == json.loads((base / name).read_text())
    # In a wider dtype, the index and the config say so.
    merge_into(tmp_path / "wide", adapter, dtype=torch.float32)
    index = json.loads((tmp_path / "wide" / INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(v.nbytes for v in weights(out).values()) * 2
    assert json.loads((tmp_path / "wide" / "config.json").read_text())["dtype"] == "float32"


def test_tensors_that_no_layer_has_are_copied(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    # transformers fuses the experts' tensors while loading; the adapter does not change them.
    model = {"num_local_experts": 2}
    adapter = make_adapter(tmp_path, tokenizer, "mixtral", model=model, target_modules=["q_proj"])
    path = next((tmp_path / "base").glob("*.safetensors"))
    extra = {"counts": torch.arange(3), "other": torch.ones(3), "scalar": torch.tensor(2.0)}
    save_file(load_file(path) | extra, path, {"format": "pt"})
    merge_into(tmp_path / "merged", adapter)
    merged, base = weights(tmp_path / "merged"), weights(tmp_path / "base")
    assert merged.keys() == base.keys()
    changed = {name for name in base if not torch.equal(merged[name], base[name].to(merged[name]))}
    assert changed == {name for name in base if "q_proj" in name}
    assert len(changed) == 2
    assert merged["counts"].dtype == torch.int64


@pytest.mark.parametrize(
    ("family", "reason"),
    [("gpt2", "its files do not call a weight transformer.h.0.attn"), ("llama", "no safetensors")],
)
def test_other_checkpoints_are_merged_as_a_whole_and_it_is_said(
    family: str,
    reason: str,
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    capsys: pytest.CaptureFixture,
) -> None:
    adapter = make_adapter(tmp_path, tokenizer, family, target_modules="attention")
    base = tmp_path / "base"
    tensors = {name.removeprefix("transformer."): value for name, value in weights(base).items()}
    for path in [*base.glob("*.safetensors"), base / INDEX]:
        path.unlink()
    if family == "gpt2":
        save_file(tensors, base / SINGLE, {"format": "pt"})
    else:
        torch.save(tensors, base / "pytorch_model.bin")
    merge_into(tmp_path / "merged", adapter)
    line = next(line for line in capsys.readouterr().out.splitlines() if "at once" in line)
    assert line.startswith("merge  the whole model at once, which takes more memory: ")
    assert reason in line
    AutoModelForCausalLM.from_pretrained(tmp_path / "merged")


def test_a_weight_that_is_loaded_with_other_values_is_not_merged_into_files(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    model, _ = load_tuned(make_adapter(tmp_path, tokenizer), None, BF16)
    checkpoint = find_checkpoint(str(tmp_path / "base"), None)
    assert checkpoint
    assert why_not(model, checkpoint) is None
    model.model.layers[0].self_attn.q_proj.weight.mul_(2)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert why_not(model, checkpoint) == f"transformers converts {name} when it loads it"


def test_the_files_of_a_hub_model_are_found_in_the_cache_and_odd_names_are_not_followed(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_adapter(tmp_path, tokenizer)
    base = tmp_path / "base"

    def cached(name: str, file: str, revision: str | None) -> str | object:
        assert (name, revision) == ("owner/name", "v2")
        return str(base / file) if (base / file).is_file() else object()

    monkeypatch.setattr("lit.exporting.shards.try_to_load_from_cache", cached)
    assert find_checkpoint("owner/name", "v2") == find_checkpoint(str(base), None)
    index = json.loads((base / INDEX).read_text())
    index["weight_map"]["model.norm.weight"] = "../base/model-00001-of-00001.safetensors"
    (base / INDEX).write_text(json.dumps(index))
    assert find_checkpoint("owner/name", "v2") is None


def test_experts_that_the_files_hold_as_one_tensor_are_merged_shard_by_shard(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, capsys: pytest.CaptureFixture
) -> None:
    model = {"num_local_experts": 4, "num_experts_per_tok": 2}
    targets = {"target_modules": ["experts"]}
    adapter = make_adapter(tmp_path, tokenizer, "gpt_oss", model=model, **targets)
    merge_into(tmp_path / "merged", adapter)
    assert "whole model" not in capsys.readouterr().out
    write_whole(adapter, None, tmp_path / "whole", BF16, BF16)
    merged, whole, base = (weights(tmp_path / name) for name in ("merged", "whole", "base"))
    assert all(torch.equal(merged[name], whole[name]) for name in base)
    changed = {name for name in base if not torch.equal(merged[name], base[name])}
    assert changed == {name for name in base if name.endswith(("gate_up_proj", "down_proj"))}
    assert len(changed) == 4
