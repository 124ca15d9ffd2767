"""The adapter folder: read by PEFT, written by PEFT, broken, and hostile."""

import dataclasses
import json
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import peft
import pytest
import torch
from conftest import make_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from lora.config import LoRAConfig
from lora.injection import inject, lora_layers, trainable_parameters
from lora.storage.adapter import CONFIG, WEIGHTS, AdapterError, load_adapter, save_adapter
from lora.storage.peft_format import UNSUPPORTED, from_peft

IDS = torch.randint(3, 320, (2, 11), generator=torch.Generator().manual_seed(0))
CASES = [
    (family, targets)
    for family in ("llama", "qwen2", "gpt2", "opt", "gemma3_text", "phi3")
    for targets in ("attention", "all-linear")
]


def make_tuned(family: str = "llama", **settings) -> PreTrainedModel:
    """Return a small model with adapters whose B is random."""
    model = make_model(family)
    inject(model, LoRAConfig(**({"r": 4, "target_modules": "all-linear"} | settings)))
    for _, layer in lora_layers(model):
        nn.init.normal_(layer.lora_B, std=0.3)
    return model


@torch.no_grad()
def logits(model: nn.Module) -> torch.Tensor:
    return model(input_ids=IDS).logits


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("family", "targets", "variant"),
    [
        *((family, targets, "lora") for family, targets in CASES),
        *((family, targets, "dora") for family, targets in CASES if targets == "all-linear"),
    ],
)
def test_peft_loads_a_saved_adapter_of_every_family_without_a_warning(
    family, targets, variant, tmp_path
):
    model = make_tuned(family, target_modules=targets, variant=variant)
    save_adapter(model, tmp_path, base="some/model")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        theirs = peft.PeftModel.from_pretrained(make_model(family), tmp_path).eval()
    about_keys = re.compile(r"\bkeys?\b|missing|unexpected|match|fan_in_fan_out", re.IGNORECASE)
    assert not [str(w.message) for w in caught if about_keys.search(str(w.message))]
    torch.testing.assert_close(logits(theirs), logits(model), atol=1e-5, rtol=0)
    assert (logits(model) - logits(make_model(family))).abs().max() > 0.01


@pytest.mark.parametrize(("family", "targets"), CASES)
def test_a_saved_adapter_of_every_family_loads_to_the_same_tensors(family, targets, tmp_path):
    model, fresh = make_tuned(family, target_modules=targets), make_model(family)
    config = load_adapter(fresh, save_adapter(model, tmp_path, base="some/model"))
    assert (config.r, config.lora_alpha) == (4, 16)
    assert trainable_parameters(model).keys() == trainable_parameters(fresh).keys()
    assert all(
        torch.equal(p, trainable_parameters(fresh)[name])
        for name, p in trainable_parameters(model).items()
    )
    assert torch.equal(logits(model), logits(fresh))


@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize(
    ("family", "targets"),
    [
        ("llama", ["q_proj", "down_proj"]),
        ("llama", "all-linear"),
        ("gpt2", ["c_attn", "mlp.c_proj"]),
        ("opt", ["fc1", "out_proj"]),
    ],
)
def test_an_adapter_that_peft_saved_computes_the_same(family, targets, use_dora, tmp_path):
    config = peft.LoraConfig(
        r=4,
        lora_alpha=12,
        target_modules=targets,
        use_dora=use_dora,
        fan_in_fan_out=family == "gpt2",
    )
    theirs = peft.get_peft_model(make_model(family), config).eval()
    for name, parameter in theirs.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    theirs.save_pretrained(tmp_path)
    ours = make_model(family)
    load_adapter(ours, tmp_path)
    torch.testing.assert_close(logits(ours), logits(theirs), atol=1e-5, rtol=0)
    assert (logits(ours) - logits(make_model(family))).abs().max() > 0.01


def test_the_folder_holds_only_the_adapter_and_only_settings_of_peft(tmp_path):
    model = make_tuned(lora_alpha=16.0, lora_dropout=0.25)
    save_adapter(model, tmp_path / "new" / "folder", base="some/model", revision="v2")
    files = contents(tmp_path / "new" / "folder")
    config = json.loads(files[CONFIG])
    assert files.keys() == {CONFIG, WEIGHTS}
    assert config.keys() <= {field.name for field in dataclasses.fields(peft.LoraConfig)}
    assert (config["base_model_name_or_path"], config["revision"]) == ("some/model", "v2")
    assert (config["r"], config["lora_dropout"]) == (4, 0.25)
    assert isinstance(config["lora_alpha"], int)  # Ollama reads no other number
    with safe_open(tmp_path / "new" / "folder" / WEIGHTS, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        keys = set(file.keys())
    assert keys == {f"base_model.model.{name}.weight" for name in trainable_parameters(model)}


def test_an_interrupted_save_keeps_the_old_config_and_leaves_no_temporary_file(
    tmp_path, monkeypatch
):
    save_adapter(make_tuned(r=4), tmp_path, base="old/model")
    before = contents(tmp_path)

    def fail(*args: object) -> None:
        raise OSError("disk is gone")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk is gone"):
        save_adapter(make_tuned(r=8), tmp_path, base="new/model")
    assert contents(tmp_path).keys() == before.keys()
    assert contents(tmp_path)[CONFIG] == before[CONFIG]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("matrix", ["lora_A", "lora_B"])
def test_a_weight_that_is_not_finite_is_not_saved(value, matrix, tmp_path):
    model = make_tuned()
    save_adapter(model, tmp_path, base="some/model")
    before = contents(tmp_path)
    path, layer = list(lora_layers(model))[-1]
    getattr(layer, matrix).data[-1, -1] = value
    with pytest.raises(AdapterError, match=f"{path}.{matrix}.* holds NaN or infinity"):
        save_adapter(model, tmp_path, base="some/model")
    with pytest.raises(AdapterError):
        save_adapter(model, tmp_path / "new", base="some/model")
    assert contents(tmp_path) == before


def test_a_file_that_computes_another_update_does_not_replace_the_old_one(tmp_path, monkeypatch):
    save_adapter(make_tuned(), tmp_path, base="some/model")
    before = contents(tmp_path)
    monkeypatch.setattr(
        "lora.storage.adapter.save_file",
        lambda weights, *args, **kwargs: save_file(
            {key: value + 0.01 for key, value in weights.items()}, *args, **kwargs
        ),
    )
    with pytest.raises(AdapterError, match="compute another update than the layer"):
        save_adapter(make_tuned(), tmp_path, base="some/model")
    assert contents(tmp_path) == before


def test_a_relative_path_of_the_base_is_written_as_an_absolute_path(tmp_path):
    save_adapter(make_tuned(), tmp_path, base="../models/mine")
    base = json.loads((tmp_path / CONFIG).read_text())["base_model_name_or_path"]
    assert Path(base) == Path("../models/mine").resolve()


def test_a_model_without_an_adapter_is_not_saved(tiny_model, tmp_path):
    with pytest.raises(AdapterError, match="no adapter"):
        save_adapter(tiny_model, tmp_path / "new", base="some/model")
    assert not (tmp_path / "new").exists()


KEY = "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"
Break = Callable[[Path], object]


def text(content: str | bytes) -> Break:
    return lambda folder: (folder / CONFIG).write_bytes(
        content if isinstance(content, bytes) else content.encode()
    )


def setting(**changes: object) -> Break:
    def change(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text()) | changes
        (folder / CONFIG).write_text(json.dumps(config))

    return change


def tensor(change: Callable[[torch.Tensor], torch.Tensor | None], name: str = KEY) -> Break:
    def rewrite(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        weights[name] = change(weights[KEY])
        kept = {key: value for key, value in weights.items() if value is not None}
        save_file(kept, folder / WEIGHTS, metadata={"format": "pt"})

    return rewrite


def many_tensors(folder: Path) -> None:
    empty = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = "{" + ",".join(f'"x{i}":{empty}' for i in range(300_000)) + "}"
    (folder / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header.encode())


def header(length: int) -> Break:
    def rewrite(folder: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        (folder / WEIGHTS).write_bytes(length.to_bytes(8, "little") + content[8:])

    return rewrite


def shaped(shape: list[int]) -> Break:
    """Change one shape in the header of the file."""

    def rewrite(folder: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        header[KEY]["shape"] = shape
        encoded = json.dumps(header).encode()
        new = len(encoded).to_bytes(8, "little") + encoded + content[8 + length :]
        (folder / WEIGHTS).write_bytes(new)

    return rewrite


def truncate(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:-100])


HOSTILE: dict[str, tuple[Break, str]] = {
    "no config": (lambda folder: (folder / CONFIG).unlink(), f"has no {CONFIG}"),
    "no JSON": (text("r: 8"), "is not JSON"),
    "half a JSON": (text('{"peft_type": "LORA", "r"'), "is not JSON"),
    "other encoding": (text('{"база": 1}'.encode("cp1251")), "is not JSON"),
    "a list": (text("[1, 2]"), "holds list, not a JSON object"),
    "no peft_type": (text("{}"), "peft_type is None"),
    "other peft_type": (setting(peft_type="IA3"), "peft_type is 'IA3'"),
    "a pattern": (setting(target_modules=r".*\.q_proj"), "target_modules is the pattern"),
    "numbers as targets": (
        setting(target_modules=[1, 2]),
        r"target_modules is \[1, 2\]; it must be a list of names",
    ),
    "an excluded pattern": (
        setting(exclude_modules=r".*\.q_proj"),
        "exclude_modules is the pattern",
    ),
    "every target excluded": (
        setting(target_modules=["q_proj"], exclude_modules=["q_proj"]),
        "leaves out every layer",
    ),
    "no targets": (setting(target_modules=None), "target_modules is empty; it must be a list"),
    "rank in quotes": (setting(r="4"), "r is '4'; it must be a whole number"),
    "true as rank": (setting(r=True), "r is True; it must be a whole number"),
    "alpha in quotes": (setting(lora_alpha="16"), "lora_alpha is '16'; it must be a number"),
    "one as true": (setting(use_rslora=1), "use_rslora is 1; it must be true or false"),
    "no magnitudes": (setting(use_dora=True), "lacks .*lora_magnitude_vector and 13 more"),
    "no head": (setting(modules_to_save=["lm_head"]), r"lacks base_model.model.lm_head.weight"),
    "many heads": (setting(modules_to_save=[f"q{i}" for i in range(10**5)]), "is named q0"),
    "an unknown head": (setting(modules_to_save=["score"]), "no layer is named score"),
    "a head of numbers": (
        setting(modules_to_save=[7]),
        r"modules_to_save is \[7\]; it must be a list of names",
    ),
    "other ranks": (setting(rank_pattern={"q_proj": 2}), r"\(4, 32\); the model needs \(2, 32\)"),
    "ranks of nothing": (
        setting(rank_pattern={"query": 2}),
        "`rank_pattern` names query, which is not an adapted layer",
    ),
    "ranks by pattern": (setting(rank_pattern={".*proj": 2}), r"has the pattern '\.\*proj'"),
    "ranks in a list": (
        setting(rank_pattern=[2]),
        r"rank_pattern is \[2\]; it must map names to numbers",
    ),
    "alphas in quotes": (setting(alpha_pattern={"q_proj": "2"}), "it must map names to numbers"),
    "other blocks": (
        setting(layers_to_transform=[0]),
        r"has the unknown tensor .*layers\.1\..* and 13 more: it was made for another",
    ),
    "unknown blocks": (setting(layers_to_transform=7), "choose from blocks 0 to 1"),
    "no number as alpha": (setting(lora_alpha=float("nan")), "`lora_alpha` is nan"),
    "a rank below 1": (setting(r=-4), "`r` is -4; it must be 1 or more"),
    "a huge rank": (setting(r=10**15), "it must be at most 65536"),
    "an unknown name": (setting(target_modules=["query"]), "no linear layer is named query"),
    "many names": (setting(target_modules=[f"q{i}" for i in range(10**5)]), "is named q0"),
    "huge settings": (setting(auto_mapping="x" * 2**21), "an adapter's settings are a few"),
    "a terminal escape in a target": (
        setting(target_modules=["\x1b[2Jtrust me"]),
        r"is named \\x1b\[2Jtrust me",
    ),
    "deep nesting": (text("[" * 10**5), "nested too deep"),
    **{
        f"{key} in use": (setting(**{key: value}), f"{key} is .*, which is not supported")
        for key, value in {
            "alora_invocation_tokens": [1, 2],
            "bias": "all",
            "init_lora_weights": "pissa",
            "layer_replication": [[0, 2]],
            "layers_pattern": "h",
            "lora_bias": True,
            "trainable_token_indices": [5],
            "use_qalora": True,
            "velora_config": {"rank": 1},
        }.items()
    },
    "other rank": (setting(r=8), r"has shape \(4, 32\); the model needs \(8, 32\)"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), f"has no {WEIGHTS}"),
    "half the weights": (truncate, "is not a complete safetensors file"),
    "no bytes": (
        lambda folder: (folder / WEIGHTS).write_bytes(b""),
        "is not a complete safetensors",
    ),
    "a pickle": (
        lambda folder: torch.save({KEY: torch.zeros(4, 32)}, folder / WEIGHTS),
        "is not a complete safetensors file",
    ),
    "only a pickle": (
        lambda folder: (folder / WEIGHTS).rename(folder / "adapter_model.bin"),
        "only adapter_model.bin, a pickle file, which is never opened",
    ),
    "half a pair": (tensor(lambda a: None, KEY.replace("_A", "_B")), "lacks .*up_proj.lora_B"),
    "300,000 tensors": (many_tensors, "too many for the 28 tensors"),
    "a header longer than the file": (header(2**60), "is not a complete safetensors file"),
    "an absurd shape": (shaped([2**40, 2**40]), "is not a complete safetensors file"),
    "a shape below zero": (shaped([-4, 32]), "is not a complete safetensors file"),
    "a path as name": (
        tensor(torch.clone, "../../../etc/passwd"),
        "has the unknown tensor ../../../etc/passwd",
    ),
    "a terminal escape in a name": (
        tensor(torch.clone, "\x1b[2J\x1b[31mtrust me"),
        r"has the unknown tensor \\x1b\[2J\\x1b\[31mtrust me",
    ),
    "a missing tensor": (tensor(lambda a: None), f"lacks {KEY}: it was made for another model"),
    "an extra tensor": (
        tensor(torch.clone, "lm_head.weight"),
        "has the unknown tensor lm_head.weight",
    ),
    "a wrong shape": (tensor(lambda a: a.T.contiguous()), rf"{KEY} has shape \(32, 4\)"),
    "integers": (tensor(torch.Tensor.int), f"{KEY} is stored as I32"),
    "NaN": (tensor(lambda a: a * float("nan")), f"{KEY} holds NaN"),
}


@contextmanager
def within(seconds: float, megabytes: float) -> Iterator[None]:
    """Check that the body takes less time and, on Linux, less memory at its peak."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def peak() -> int:
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) if reset.exists() else 0

    if reset.exists():
        reset.write_text("5")
    start, held = time.process_time(), peak()
    yield
    assert time.process_time() - start < seconds
    assert (peak() - held) / 1024 < megabytes


@pytest.mark.parametrize("name", HOSTILE)
def test_a_broken_folder_is_refused_with_its_fault_and_the_model_is_not_changed(
    name, tiny_model, tmp_path
):
    damage, message = HOSTILE[name]
    save_adapter(make_tuned(), tmp_path, base="some/model")
    damage(tmp_path)
    files = contents(tmp_path)
    before = {key: value.clone() for key, value in tiny_model.state_dict().items()}
    with within(seconds=2, megabytes=200), pytest.raises(AdapterError, match=message) as caught:
        load_adapter(tiny_model, tmp_path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    assert contents(tmp_path) == files
    assert not any(lora_layers(tiny_model))
    after = tiny_model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert all(p.requires_grad for p in tiny_model.parameters())


def test_every_setting_of_peft_is_supported_refused_or_harmless():
    defaults = peft.LoraConfig(task_type="CAUSAL_LM").to_dict()
    ours = {"r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "use_dora"}
    ours |= {"rank_pattern", "alpha_pattern", "layers_to_transform", "modules_to_save"}
    ours |= {"target_parameters"}
    ours |= {"exclude_modules"}
    harmless = {"peft_type", "task_type", "base_model_name_or_path", "revision", "fan_in_fan_out"}
    harmless |= {"auto_mapping", "peft_version", "inference_mode"}
    harmless |= {"ensure_weight_tying", "megatron_core", "qalora_group_size"}
    assert set(defaults) == ours | harmless | set(UNSUPPORTED)
    assert from_peft(defaults | {"target_modules": ["q_proj"]}).target_modules == ["q_proj"]
