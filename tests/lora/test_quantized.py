"""A base in 4 or 8 bits under the same adapters."""

from pathlib import Path

import peft
import pytest
import torch
from conftest import make_model
from torch import nn

from lit.fit import main as fit
from lit.merge import main as merge
from lora.base import QUANTIZATIONS, dense_weight, is_quantized
from lora.config import ConfigError, LoRAConfig
from lora.inject import count_parameters, inject, lora_layers, quantize_model
from lora.storage.adapter import save_adapter

IDS = torch.randint(3, 300, (1, 12), generator=torch.Generator().manual_seed(0))
FAR = {"nf4": 0.15, "fp4": 0.2, "int8": 0.02}
"""How far a rounded weight may be from its original, as a share of its size."""


def quantised_model(kind: str) -> nn.Module:
    """A tiny llama with its linear layers in 4 or 8 bits."""
    model = make_model(hidden_size=64, intermediate_size=128, head_dim=16)
    quantize_model(model, kind, torch.float32)
    return model


def packed_layers(model: nn.Module) -> dict[str, nn.Linear]:
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and is_quantized(module)
    }


@pytest.mark.parametrize("kind", QUANTIZATIONS)
def test_every_linear_layer_but_the_head_is_held_in_few_bits(kind: str) -> None:
    model = quantised_model(kind)
    packed = packed_layers(model)
    assert len(packed) == 14
    assert "lm_head" not in packed
    bits = 8 if kind == "int8" else 4
    for layer in packed.values():
        assert layer.weight.dtype == (torch.int8 if bits == 8 else torch.uint8)
        assert layer.weight.nbytes * 8 == layer.in_features * layer.out_features * bits
    dense = make_model(hidden_size=64, intermediate_size=128, head_dim=16)
    assert count_parameters(model).total == count_parameters(dense).total


@pytest.mark.parametrize("kind", QUANTIZATIONS)
@torch.no_grad()
def test_a_rounded_weight_is_near_its_original_before_and_after_it_computes(kind: str) -> None:
    dense = make_model(hidden_size=64, intermediate_size=128, head_dim=16)
    packed = quantised_model(kind)
    before = {path: dense_weight(layer) for path, layer in packed_layers(packed).items()}
    for mode in (False, True, False):
        packed.train(mode)(IDS)
    for path, layer in packed_layers(packed).items():
        original = dense.get_submodule(path).weight
        off = (dense_weight(layer) - original).norm() / original.norm()
        assert 0 < off < FAR[kind], path
        assert torch.equal(dense_weight(layer), before[path]), path


@pytest.mark.parametrize("kind", QUANTIZATIONS)
def test_gradients_flow_after_answers_were_computed_in_eval_mode(kind: str) -> None:
    # bitsandbytes would repack 4-bit weights for some CPUs then, for good and without gradients.
    model, fresh = quantised_model(kind), quantised_model(kind)
    with torch.no_grad():
        model.eval()(IDS)
    found = []
    for each in (model, fresh):
        embeddings = each.get_input_embeddings()(IDS).detach().requires_grad_()
        each.train()(inputs_embeds=embeddings).logits.square().sum().backward()
        found.append(embeddings.grad)
    assert found[0].any()
    assert torch.equal(*found)


@torch.no_grad()
def test_int8_rounds_its_inputs_in_eval_mode_and_still_says_nearly_the_same() -> None:
    model = quantised_model("int8")
    exact, rounded = model.train()(IDS).logits, model.eval()(IDS).logits
    assert 0 < (rounded - exact).norm() / exact.norm() < 0.05


def test_a_kind_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match="is 'int3'; there are nf4, fp4, int8"):
        quantize_model(make_model(), "int3", torch.float32)


def test_a_device_that_cannot_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match="nf4, which is not known to work on meta"):
        quantize_model(make_model().to("meta"), "nf4", torch.float32)


def test_transposed_layers_are_refused() -> None:
    with pytest.raises(ConfigError, match="GPT-2"):
        quantize_model(make_model("gpt2"), "nf4", torch.float32)


@pytest.mark.parametrize(
    ("kind", "optimizer"),
    [("nf4", "adamw_8bit"), ("nf4", "paged_adamw_8bit"), ("int8", "adamw")],
)
def test_a_run_on_a_rounded_base_trains_and_merges_into_the_dense_one(
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
    said = capsys.readouterr().out
    assert ("paging needs a GPU" in said) == (optimizer == "paged_adamw_8bit")
    adapter, out = str(run / "adapter"), str(tmp_path / "merged")
    assert merge(["--adapter", adapter, "--output_dir", out, "--quantize", kind]) == 0
    assert f"on the {kind} base" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_peft_computes_the_same_over_the_same_4_bit_base(kind: str, tmp_path: Path) -> None:
    ours = quantised_model(kind)
    inject(ours, LoRAConfig(r=4))
    for _, layer in lora_layers(ours):
        torch.nn.init.normal_(layer.lora_B, std=0.1)
    save_adapter(ours, tmp_path, "base")
    base = quantised_model(kind)
    base.is_loaded_in_4bit = True  # what transformers sets; PEFT asks for it
    theirs = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    ids = torch.randint(3, 300, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert type(theirs.base_model.model.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"
        assert (ours(ids).logits - theirs(ids).logits).abs().max() <= 1e-5
