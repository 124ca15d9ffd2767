"""A 4-bit base under the same adapters."""

from pathlib import Path

import pytest
import torch
from conftest import make_model
from torch import nn

from lit.fit import main as fit
from lit.merge import main as merge
from lora.base import dense_weight, quant_state
from lora.config import ConfigError, LoRAConfig
from lora.inject import VARIANTS, adapted, count, inject, quantise, tensors
from lora.inject import merge as fold

KINDS = ("nf4", "fp4")


def quantised_model(kind: str) -> nn.Module:
    """A tiny llama with its linear layers in 4 bits."""
    model = make_model(hidden_size=64, intermediate_size=128, head_dim=16)
    quantise(model, kind, torch.float32)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_every_linear_layer_but_the_head_is_held_in_4_bits(kind: str) -> None:
    model = quantised_model(kind)
    packed = [m for m in model.modules() if isinstance(m, nn.Linear) and quant_state(m)]
    assert len(packed) == 14
    assert all(layer.weight.dtype == torch.uint8 for layer in packed)
    assert not quant_state(model.lm_head)
    dense = make_model(hidden_size=64, intermediate_size=128, head_dim=16)
    assert count(model).total == count(dense).total


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_adapters_on_a_4_bit_base_keep_their_contract(variant: str, kind: str) -> None:
    model = quantised_model(kind)
    ids = torch.randint(3, 300, (1, 12), generator=torch.Generator().manual_seed(0))
    before = model(ids).logits
    inject(model, LoRAConfig(r=4, variant=variant))
    assert torch.equal(model(ids).logits, before)  # silent at the start
    for _, layer in adapted(model):
        nn.init.normal_(layer.lora_B, std=0.1)
    model(ids).logits.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in tensors(model).values())
    tuned = model(ids).logits
    fold(model)
    torch.testing.assert_close(model(ids).logits, tuned, rtol=0, atol=1e-4)


def test_a_4_bit_weight_is_near_its_original() -> None:
    dense = make_model(hidden_size=64, intermediate_size=128, head_dim=16)
    packed = quantised_model("nf4")
    for path, module in packed.named_modules():
        if isinstance(module, nn.Linear) and quant_state(module):
            original = dense.get_submodule(path).weight
            off = (dense_weight(module) - original).norm() / original.norm()
            assert 0 < off < 0.15, path


def test_transposed_layers_are_refused() -> None:
    with pytest.raises(ConfigError, match="GPT-2"):
        quantise(make_model("gpt2"), "nf4", torch.float32)


@pytest.mark.parametrize("optimizer", ["adamw_8bit", "paged_adamw_8bit"])
def test_a_run_on_a_4_bit_base_trains_and_merges_into_the_dense_one(
    optimizer: str, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("question,answer\n" + "".join(f"Q {i}?,A {i}.\n" for i in range(10)), "utf-8")
    run = tmp_path / "run"
    command = [
        *("--model.base", str(tiny_folder), "--data.path", str(rows), "--output_dir", str(run)),
        *("--model.quantize", "nf4", "--model.optimizer", optimizer, "--model.lr", "1e-2"),
        *("--trainer.accelerator", "cpu"),
    ]
    assert fit(command) == 0
    said = capsys.readouterr().out
    assert ("paging needs a GPU" in said) == (optimizer == "paged_adamw_8bit")
    adapter, out = str(run / "adapter"), str(tmp_path / "merged")
    assert merge(["--adapter", adapter, "--output_dir", out, "--quantize", "nf4"]) == 0
    assert "on the nf4 base" in capsys.readouterr().out
