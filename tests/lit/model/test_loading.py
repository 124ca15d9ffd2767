"""Loading a base model: whole or refused, quantized one weight after the other."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from lit.model.base import load_base
from lora.base import QUANTIZATIONS, quantization
from lora.config import ConfigError, LoRAConfig
from lora.injection import inject, quantize_model
from lora.storage.adapter import save_adapter

IDS = torch.randint(3, 300, (1, 12), generator=torch.Generator().manual_seed(0))
SIZES = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
FAMILIES = {
    "llama": {"tie_word_embeddings": True},
    "qwen2": {},  # with biases
    "mixtral": {"num_local_experts": 4},  # its checkpoint has other tensors than its layers
}
WEIGHTS = "model.safetensors"
MLP = "model.layers.1.mlp"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's model, in bfloat16."""
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = tmp_path_factory.mktemp(family)
            model = make_model(family, **SIZES, **FAMILIES[family])
            model.to(torch.bfloat16).save_pretrained(made[family])
        return made[family]

    return folder


@pytest.fixture
def changed(folders: Callable[[str], Path], tmp_path: Path) -> Callable[..., str]:
    """Copy a model's folder with other weights or another config."""

    def copy(change: Callable[[dict], object] = dict.copy, **config: Any) -> str:
        folder = shutil.copytree(folders("qwen2"), tmp_path / "changed")
        weights = load_file(folder / WEIGHTS)
        change(weights)
        save_file(weights, folder / WEIGHTS, {"format": "pt"})
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(settings | config))
        return str(folder)

    return copy


def kinds(model: nn.Module) -> dict[str, tuple[str, str | None]]:
    """Return the class of each layer, and how its weight is quantized."""
    return {
        path: (type(layer).__name__, quantization(layer) if isinstance(layer, nn.Linear) else None)
        for path, layer in model.named_modules()
    }


@torch.inference_mode()
def logits(model: PreTrainedModel) -> Tensor:
    return model(IDS).logits


@pytest.mark.parametrize("kind", QUANTIZATIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_base_quantized_while_loading_equals_one_quantized_after_it(
    family: str, kind: str, folders: Callable[[str], Path]
) -> None:
    base = str(folders(family))
    after = load_base(base, None, torch.float32)
    quantize_model(after, kind, torch.float32)
    loaded = load_base(base, None, torch.float32, kind)
    assert kinds(loaded) == kinds(after)
    for path, layer in after.named_modules():
        if isinstance(layer, nn.Linear):
            assert torch.equal(layer.weight, loaded.get_submodule(path).weight), path
            assert not getattr(layer, "support_avx512bf16_for_cpu", False), path
    for training in (True, False):
        assert torch.equal(logits(loaded.train(training)), logits(after.train(training)))
    # It is an ordinary model: transformers would refuse to cast a quantized one.
    assert loaded.to(torch.bfloat16).get_input_embeddings().weight.dtype == torch.bfloat16


class DenseWeights(TorchDispatchMode):
    """Holds, at each call that quantizes a weight, how many earlier dense weights still live."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[StorageWeakRef] = []
        self.alive: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.name().split(".")[0] in QUANTIZING and args[0].ndim == 2:
            self.alive.append(sum(not weight.expired() for weight in self.seen))
            self.seen.append(StorageWeakRef(args[0].untyped_storage()))
        return func(*args, **(kwargs or {}))


QUANTIZING = ("bitsandbytes::quantize_4bit", "bitsandbytes::int8_vectorwise_quant")


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_dense_weight_is_freed_before_the_next_one_is_quantized(
    kind: str, folders: Callable[[str], Path]
) -> None:
    with DenseWeights() as weights:
        load_base(str(folders("qwen2")), None, torch.float32, kind)
    assert len(weights.alive) == 14
    assert max(weights.alive) <= 1


@pytest.mark.parametrize("kind", QUANTIZATIONS)
def test_a_folder_that_transformers_quantized_loads_as_it_is(
    kind: str, folders: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    settings = BitsAndBytesConfig(
        load_in_4bit=kind != "int8",
        load_in_8bit=kind == "int8",
        bnb_4bit_quant_type="fp4" if kind == "fp4" else "nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=["lm_head", "layers.0.mlp.up_proj"],
    )
    stored = AutoModelForCausalLM.from_pretrained(
        folders("llama"), dtype=torch.bfloat16, quantization_config=settings
    )
    stored.save_pretrained(tmp_path)
    base = str(tmp_path)
    # In eval mode, bitsandbytes repacks the weights of transformers' model on some CPUs.
    expected = logits(stored.train())
    for quantize in (None, kind):
        model = load_base(base, None, torch.bfloat16, quantize)
        assert torch.equal(logits(model.train()), expected)
    assert "not quantized: 1 linear layer: model.layers.0.mlp.up_proj" in capsys.readouterr().err
    # Computed in float32, it differs by rounding.
    model = load_base(base, None, torch.float32)
    assert model.dtype == logits(model).dtype == torch.float32
    torch.testing.assert_close(logits(model), expected.float(), atol=0.02, rtol=0.1)
    other = "fp4" if kind == "nf4" else "nf4"
    with pytest.raises(ConfigError, match=f"`quantize` is {other}, and .* are stored in {kind}"):
        load_base(base, None, torch.bfloat16, other)
    weights = load_file(tmp_path / WEIGHTS)
    gone = {name: value for name, value in weights.items() if not name.startswith(MLP)}
    save_file(gone, tmp_path / WEIGHTS, {"format": "pt"})
    with pytest.raises(ConfigError, match="lacks weights of its quantized layers"):
        load_base(base)


@pytest.mark.parametrize(
    ("stored", "named"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf7"}, "nf7"),
    ],
)
def test_another_quantization_is_refused_by_name(
    stored: dict, named: str, changed: Callable[..., str]
) -> None:
    with pytest.raises(ConfigError, match=f"is stored in {named}, which does not load here: take"):
        load_base(changed(quantization_config=stored))


def test_a_config_that_calls_dense_weights_quantized_is_refused(
    changed: Callable[..., str],
) -> None:
    stored = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "quant_method": "bitsandbytes"}
    with pytest.raises(ConfigError, match="says that its layers are quantized, and the weight of"):
        load_base(changed(quantization_config=stored))


def without_mlp(weights: dict[str, Tensor]) -> None:
    for name in [name for name in weights if name.startswith(MLP)]:
        del weights[name]


@pytest.mark.parametrize("kind", [None, "nf4", "int8"])
def test_missing_weights_refuse_a_model_by_name(
    kind: str | None, changed: Callable[..., str]
) -> None:
    names = rf"{MLP}.down_proj.weight, {MLP}.gate_proj.weight, {MLP}.up_proj.weight\. Download"
    with pytest.raises(ConfigError, match=rf"lacks 3 weights that Qwen2ForCausalLM needs: {names}"):
        load_base(changed(without_mlp), None, torch.float32, kind)


@pytest.mark.parametrize("kind", [None, "nf4", "int8"])
@pytest.mark.parametrize("name", [f"{MLP}.up_proj.weight", "model.norm.weight"])
def test_weights_of_another_shape_refuse_a_model_by_name(
    name: str, kind: str | None, changed: Callable[..., str]
) -> None:
    base = changed(lambda weights: weights.update({name: weights[name][:8].contiguous()}))
    message = rf"has 1 weight of other shapes than its config.json says: {name}; the first is \(8,"
    with pytest.raises(ConfigError, match=message):
        load_base(base, None, torch.float32, kind)


def test_unused_weights_are_said_in_a_line_and_known_harmless_ones_are_not(
    changed: Callable[..., str], capsys: pytest.CaptureFixture
) -> None:
    more = {f"model.layers.{i}.extra": torch.ones(2) for i in (2, 3, 4, 5)}
    harmless = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    base = changed(lambda weights: weights.update(more | harmless))
    load_base(base)
    line = next(line for line in capsys.readouterr().err.splitlines() if "model  " in line)
    assert line.startswith(f"model  {base} has 4 weights that Qwen2ForCausalLM does not use: model")
    assert line.endswith("layers.2.extra, model.layers.3.extra, model.layers.4.extra, …")


@pytest.mark.parametrize("command", ["chat", "compare", "merge"])
def test_every_command_refuses_a_base_with_a_missing_layer(
    command: str, changed: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    from importlib import import_module

    base = changed(without_mlp)
    model = make_model("qwen2", **SIZES)
    inject(model, LoRAConfig(r=2, target_modules=["q_proj"]))
    adapter = str(save_adapter(model, tmp_path / "adapter", base))
    (tmp_path / "questions.txt").write_text("What is missing?")
    more = {
        "chat": ["--prompt", "What is missing?"],
        "compare": ["--questions", str(tmp_path / "questions.txt")],
        "merge": ["--output_dir", str(tmp_path / "merged")],
    }
    main = import_module(f"lit.{command}").main
    assert main(["--adapter", adapter, *more[command]]) == 2
    assert f"lacks 3 weights that Qwen2ForCausalLM needs: {MLP}" in capsys.readouterr().err
