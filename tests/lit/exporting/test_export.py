"""python -m lit.export: the same update in other formats, written completely or not at all."""

import json
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from conftest import ADAPTERS, make_model
from gguf import GGUFReader
from mixed_families import make_mixed
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from lit.export import SUFFIXES, main
from lit.exporting.gguf_targets import ARCHITECTURES
from lit.model.tuned import load_tuned
from lora.config import PROJECTIONS, LoRAConfig
from lora.injection import inject, lora_layers, trainable_parameters
from lora.storage.adapter import save_adapter
from lora.storage.peft_tensors import to_portable
from tests.adversary.modelfile_parser import parse

IDS = torch.randint(3, 320, (2, 11), generator=torch.Generator().manual_seed(0))
REFUSED = {
    "dora": "is DoRA, and a LoRA GGUF cannot hold its magnitudes",
    "dora, biases": "is DoRA, and a LoRA GGUF cannot hold its magnitudes",
    "whole head": "lm_head trained in full, and a LoRA GGUF cannot hold full layers",
    "whole embedding": "embed_tokens trained in full, and a LoRA GGUF cannot hold full layers",
    **dict.fromkeys(
        (
            *("tied embedding", "embedding without its head", "head without its embedding"),
            "embedding and head apart",
        ),
        "trained in full, and a LoRA GGUF cannot hold full layers",
    ),
    **dict.fromkeys(("experts", "experts, patterns"), "on experts, which a LoRA GGUF"),
}
"""Adapters of conftest's table that a LoRA GGUF cannot hold, with the error's text."""
PORTABLE = [kind for kind in ADAPTERS if kind not in REFUSED]
INTERLEAVED = ("llama", "mistral")
"""Families in which llama.cpp stores the rows of queries and keys in another order."""


@pytest.fixture
def make(tiny_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes an adapter's folder, by PEFT unless PEFT saves the kind for a changed base."""

    def adapter(kind: str = "lora", family: str = "llama") -> Path:
        base, folder = tmp_path / "base", tmp_path / "adapter"
        make_model(**{"family": family} | (ADAPTERS[kind].model or {})).save_pretrained(base)
        AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(base)
        model = AutoModelForCausalLM.from_pretrained(base)
        settings = {"r": 4, "lora_alpha": 6, "target_modules": [*PROJECTIONS]}
        if family == "gpt2":
            settings["target_modules"] = ["c_attn"]
        ours = kind == "pissa"
        if ours:
            inject(model, LoRAConfig(**(settings | ADAPTERS[kind].ours)))
        else:
            settings |= ADAPTERS[kind].theirs | {"task_type": "CAUSAL_LM"}
            model = peft.get_peft_model(model, peft.LoraConfig(**settings))
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in trainable_parameters(model).values():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        if ours:
            save_adapter(model, folder, str(base))
        else:
            model.save_pretrained(folder)
        return folder

    return adapter


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    return model.eval()(input_ids=IDS).logits


def export(kind: str, adapter: Path, *more: str) -> int:
    return main(["--adapter", str(adapter), "--format", kind, *more])


def by_peft(base: Path, folder: Path) -> nn.Module:
    return peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)


READERS = {
    "peft": by_peft,
    "merged": lambda base, folder: AutoModelForCausalLM.from_pretrained(folder),
}


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("form", READERS)
def test_other_tools_compute_what_the_adapter_computes(
    form: str, kind: str, make: Callable[..., Path], tmp_path: Path
) -> None:
    adapter = make(kind)
    assert export(form, adapter, "--output", str(tmp_path / "out")) == 0
    expected = logits(load_tuned(adapter)[0])
    exported = logits(READERS[form](tmp_path / "base", tmp_path / "out"))
    torch.testing.assert_close(exported, expected, atol=5e-5, rtol=1e-4)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert (expected - logits(base)).abs().max() > 0.01


@pytest.mark.parametrize("kind", ["rslora", "patterns, rslora"])
def test_a_peft_folder_is_complete_and_in_the_form_most_tools_read(
    kind: str, make: Callable[..., Path], tmp_path: Path
) -> None:
    adapter = make(kind)
    (adapter / "README.md").unlink(missing_ok=True)
    assert export("peft", adapter) == 0
    out = tmp_path / "adapter-peft"
    assert {path.name for path in out.iterdir()} == {
        *("adapter_config.json", "adapter_model.safetensors", "README.md"),
        *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
    }
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["use_rslora"], config["rank_pattern"], config["alpha_pattern"]) == (
        False,
        {},
        {},
    )
    assert isinstance(config["lora_alpha"], int)
    assert f"# LoRA adapter for {tmp_path / 'base'}" in (out / "README.md").read_text()


def test_a_model_card_is_kept(make: Callable[..., Path], tmp_path: Path) -> None:
    adapter = make()
    (adapter / "README.md").write_text("# Мой адаптер\n", "utf-8")
    assert export("peft", adapter) == 0
    assert (tmp_path / "adapter-peft" / "README.md").read_text("utf-8") == "# Мой адаптер\n"


@pytest.mark.parametrize(("family", "noted"), [("afmoe", True), ("qwen3_moe", False)])
def test_a_peft_folder_says_where_peft_would_compute_something_else(
    family: str,
    noted: bool,
    tiny_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    """Where that is, tests/lit/model/test_peft_note.py finds with PEFT."""
    model = make_mixed(family)
    model.save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(tmp_path / "base")
    inject(model, LoRAConfig(r=2))
    adapter = save_adapter(model, tmp_path / "adapter", str(tmp_path / "base"))
    assert export("peft", adapter) == 0
    note = "Merge it first: python -m lit.merge --adapter"
    assert (f"{note} {adapter}\n" in capsys.readouterr().out) is noted
    card = (tmp_path / "adapter-peft" / "README.md").read_text("utf-8")
    assert (note in card, "PeftModel.from_pretrained" in card) == (noted, not noted)


def read_gguf(path: Path, model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the updates in a GGUF file by tensor name, with rows in transformers' order."""
    reader = GGUFReader(path)
    tensors = {tensor.name: torch.tensor(tensor.data) for tensor in reader.tensors}
    alpha = reader.fields["adapter.lora.alpha"].contents()
    heads = {
        "attn_q": model.config.num_attention_heads,
        "attn_k": model.config.num_key_value_heads,
    }
    updates = {}
    for name in {name.rpartition(".")[0] for name in tensors}:
        A, B = tensors[f"{name}.lora_a"], tensors[f"{name}.lora_b"]
        part = name.split(".")[2]
        if model.config.model_type in INTERLEAVED and part in heads:
            B = B.view(heads[part], -1, 2, B.shape[1]).transpose(1, 2).reshape(B.shape)
        updates[name] = alpha / A.shape[0] * B @ A
    return updates


PARTS = {
    **{f"self_attn.{part}_proj": f"attn_{part}" for part in "qkv"},
    "self_attn.o_proj": "attn_output",
    **{f"mlp.{part}_proj": f"ffn_{part}" for part in ("gate", "up", "down")},
}


@pytest.mark.parametrize(
    ("kind", "family"),
    [(kind, "llama") for kind in PORTABLE]
    + [("lora", family) for family in ARCHITECTURES if family != "llama"],
)
def test_a_gguf_file_holds_the_update(
    kind: str, family: str, make: Callable[..., Path], tmp_path: Path
) -> None:
    adapter = make(kind, family)
    assert export("gguf", adapter) == 0
    model, _ = load_tuned(adapter)
    updates = read_gguf(tmp_path / "adapter.gguf", model)
    for path, layer in lora_layers(model):
        _, _, block, part = path.split(".", 3)
        A, B = layer.factors()
        expected = layer.config.scale * (B @ A).detach()
        update = updates.pop(f"blk.{block}.{PARTS[part]}.weight")
        torch.testing.assert_close(update, expected, atol=1e-6, rtol=1e-5)
    assert not updates


def test_a_gguf_file_has_the_metadata_of_a_lora_adapter(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    assert export("gguf", make("lora", "mistral")) == 0
    reader = GGUFReader(tmp_path / "adapter.gguf")
    metadata = {key: field.contents() for key, field in reader.fields.items()}
    expected = {
        "general.type": "adapter",
        "general.architecture": "llama",
        "adapter.type": "lora",
        "adapter.lora.alpha": 6.0,
        "general.base_model.0.name": "base",
    }
    assert expected.items() <= metadata.items()
    assert str(tmp_path) not in str(metadata)


@pytest.mark.parametrize("kind", REFUSED)
def test_an_adapter_that_gguf_cannot_hold_is_refused_by_name(
    kind: str, make: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert export("gguf", make(kind)) == 2
    error = capsys.readouterr().err
    assert REFUSED[kind] in error
    assert "use --format merged" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


@pytest.mark.parametrize("family", ["gpt2", "gemma3_text"])
def test_an_unsupported_model_type_is_refused_by_name(
    family: str, make: Callable[..., Path], capsys: pytest.CaptureFixture
) -> None:
    assert export("gguf", make("lora", family)) == 2
    error = capsys.readouterr().err
    assert f"is of type {family}, and --format gguf supports llama, mistral, qwen2" in error


def test_without_the_gguf_package_the_error_gives_the_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("lit.export.find_spec", lambda name: None)
    assert export("gguf", tmp_path / "adapter") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert '-e ".[export]"' in error


LATE_CALLS = {
    "peft": "lit.exporting.peft_folder.load_adapter",
    "merged": "lit.exporting.merging.relative_difference",
    "gguf": "lit.exporting.gguf_lora.check_portable",
}
"""A function that is called after the files are written, by format."""


@pytest.mark.parametrize("form", SUFFIXES)
def test_an_interrupted_export_leaves_nothing(
    form: str, make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = make()

    def interrupt(*args: object, **kwargs: object) -> None:
        written = [path for path in tmp_path.glob(".*/*") if SUFFIXES[form] in path.name]
        assert written
        raise KeyboardInterrupt

    monkeypatch.setattr(LATE_CALLS[form], interrupt)
    assert export(form, adapter) == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


@pytest.mark.parametrize("form", SUFFIXES)
def test_existing_files_are_not_overwritten(
    form: str, make: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    adapter = make()
    taken = tmp_path / f"adapter{SUFFIXES[form]}"
    taken.write_text("keep")
    assert export(form, adapter) == 2
    assert "already exists: choose another path, or remove it" in capsys.readouterr().err
    assert taken.read_text() == "keep"
    if form == "gguf":
        (tmp_path / "empty").mkdir()
        assert export(form, adapter, "--output", str(tmp_path / "empty")) == 2
        assert "is a folder, but a LoRA GGUF is one file" in capsys.readouterr().err


@pytest.mark.parametrize("form", SUFFIXES)
def test_an_export_that_computes_something_else_is_not_kept(
    form: str, make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = make()
    sabotage = {
        "peft": ("lit.exporting.peft_folder.load_adapter", lambda model, folder: LoRAConfig()),
        "merged": ("lit.exporting.shards.changed_layers", lambda model: {}),
        "gguf": ("lit.exporting.gguf_lora.to_portable", doubled_alpha),
    }
    monkeypatch.setattr(*sabotage[form])
    assert export(form, adapter) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


def doubled_alpha(model: nn.Module) -> tuple[int, int, dict[str, Tensor]]:
    r, lora_alpha, weights = to_portable(model)
    return r, 2 * lora_alpha, weights


def test_a_modelfile_names_the_base_and_the_adapter_and_the_command_their_sizes(
    make: Callable[..., Path], capsys: pytest.CaptureFixture
) -> None:
    adapter = make()
    assert main(["--adapter", str(adapter), "--format", "gguf", "--ollama"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    written = dict(parse(adapter.with_suffix(".Modelfile").read_text("utf-8")))
    assert (written["from"], written["adapter"]) == ("./base", "./adapter.gguf")
    assert "{{ .Content }}" in written["template"]
    assert (written["stop"], written["temperature"]) == ("<|im_end|>", "0")
    size = adapter.with_suffix(".gguf").stat().st_size / 1e6
    base = (adapter.parent / "base" / "model.safetensors").stat().st_size / 1e6
    assert f"send adapter.Modelfile, adapter.gguf ({size:.1f} MB)" in printed
    assert f"({base:.1f} MB), as ./base" in printed
    assert f"ollama create NAME -f {adapter.with_suffix('.Modelfile')}" in printed


@pytest.mark.parametrize("kind", ["merged", "gguf"])
def test_a_template_that_ollama_cannot_have_ends_the_export_before_it_writes(
    kind: str, make: Callable[..., Path], capsys: pytest.CaptureFixture
) -> None:
    adapter = make()
    base = adapter.parent / "base"
    numbered = "{% for m in messages %}{{ loop.index }}{{ m['content'] }}<|im_end|>{% endfor %}"
    (base / "chat_template.jinja").write_text(numbered, "utf-8")
    assert main(["--adapter", str(adapter), "--format", kind, "--ollama"]) == 2
    assert "cannot be written as a template of Ollama" in capsys.readouterr().err
    assert {path.name for path in adapter.parent.iterdir()} >= {"adapter", "base"}
    assert not [path for path in adapter.parent.iterdir() if path.name.startswith("adapter-")]
    assert not adapter.with_suffix(".gguf").exists()
    assert main(["--adapter", str(adapter), "--format", kind]) == 0
    assert main(["--adapter", str(adapter), "--format", "peft", "--ollama"]) == 2
