"""A base in 4 or 8 bits under an adapter."""

from pathlib import Path

import peft
import pytest
import torch
from conftest import make_model
from safetensors.torch import save_file
from torch import nn

from lora.base import QUANTIZATIONS, dense_weight, is_quantized, quantized_layer
from lora.config import ConfigError, LoRAConfig
from lora.injection import count_parameters, inject, lora_layers, quantize_model
from lora.storage.adapter import WEIGHTS, AdapterError, read_quantization, save_adapter

IDS = torch.randint(3, 300, (1, 12), generator=torch.Generator().manual_seed(0))
LARGEST_ERROR = {"nf4": 0.15, "fp4": 0.2, "int8": 0.02}
"""The largest relative error of a quantized weight."""


def make_quantized(kind: str) -> nn.Module:
    """Return a small llama with its linear layers in 4 or 8 bits."""
    model = make_model(hidden_size=64, intermediate_size=128, head_dim=16)
    quantize_model(model, kind, torch.float32)
    return model


def quantized_layers(model: nn.Module) -> dict[str, nn.Linear]:
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and is_quantized(module)
    }


@pytest.mark.parametrize("kind", QUANTIZATIONS)
def test_every_linear_layer_but_the_head_is_stored_in_few_bits(kind: str) -> None:
    model = make_quantized(kind)
    packed = quantized_layers(model)
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
def test_a_quantized_weight_is_near_its_original_and_a_forward_pass_does_not_change_it(
    kind: str,
) -> None:
    dense = make_model(hidden_size=64, intermediate_size=128, head_dim=16)
    packed = make_quantized(kind)
    before = {path: dense_weight(layer) for path, layer in quantized_layers(packed).items()}
    for mode in (False, True, False):
        packed.train(mode)(IDS)
    for path, layer in quantized_layers(packed).items():
        original = dense.get_submodule(path).weight
        off = (dense_weight(layer) - original).norm() / original.norm()
        assert 0 < off < LARGEST_ERROR[kind], path
        assert torch.equal(dense_weight(layer), before[path]), path


@pytest.mark.parametrize("kind", QUANTIZATIONS)
def test_a_forward_pass_in_eval_mode_changes_no_later_gradient(kind: str) -> None:
    # On some CPUs bitsandbytes would repack 4-bit weights in eval mode and lose their gradients.
    model, fresh = make_quantized(kind), make_quantized(kind)
    with torch.no_grad():
        model.eval()(IDS)
    gradients = []
    for each in (model, fresh):
        embeddings = each.get_input_embeddings()(IDS).detach().requires_grad_()
        each.train()(inputs_embeds=embeddings).logits.square().sum().backward()
        gradients.append(embeddings.grad)
    assert gradients[0].any()
    assert torch.equal(*gradients)


@torch.no_grad()
def test_int8_rounds_its_inputs_in_eval_mode_and_computes_nearly_the_same() -> None:
    model = make_quantized("int8")
    exact, rounded = model.train()(IDS).logits, model.eval()(IDS).logits
    assert 0 < (rounded - exact).norm() / exact.norm() < 0.05


def test_an_error_about_an_unknown_kind_lists_the_kinds() -> None:
    with pytest.raises(ConfigError, match=r"^`quantize` is 'int3'; choose nf4, fp4, int8$"):
        quantize_model(make_model(), "int3", torch.float32)


def test_an_unsupported_device_is_refused() -> None:
    with pytest.raises(
        ConfigError,
        match=r"^`quantize` is nf4, which is not known to work on meta: use a CPU or an",
    ):
        quantize_model(make_model().to("meta"), "nf4", torch.float32)


def test_a_model_with_transposed_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match="like GPT-2, cannot be quantized: leave `quantize` out"):
        quantize_model(make_model("gpt2"), "nf4", torch.float32)


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_peft_computes_the_same_on_the_same_4_bit_base(kind: str, tmp_path: Path) -> None:
    ours = make_quantized(kind)
    inject(ours, LoRAConfig(r=4))
    for _, layer in lora_layers(ours):
        torch.nn.init.normal_(layer.lora_B, std=0.1)
    save_adapter(ours, tmp_path, "base")
    assert read_quantization(tmp_path) == kind
    base = make_quantized(kind)
    base.is_loaded_in_4bit = True  # transformers sets it and PEFT reads it
    theirs = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    ids = torch.randint(3, 300, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert type(theirs.base_model.model.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"
        assert (ours(ids).logits - theirs(ids).logits).abs().max() <= 1e-5


def test_int8_keeps_the_largest_value_of_each_row() -> None:
    torch.manual_seed(0)
    base = nn.Linear(64, 32)
    quantized = dense_weight(quantized_layer(base, "int8", torch.float32))
    largest = base.weight.detach().half().float().abs().amax(1)
    torch.testing.assert_close(quantized.abs().amax(1), largest)


def test_an_adapter_remembers_how_its_base_was_quantized_and_a_strangers_word_is_checked(
    tmp_path: Path,
) -> None:
    model = make_quantized("int8")
    inject(model, LoRAConfig(r=4))
    assert read_quantization(save_adapter(model, tmp_path / "int8", "base")) == "int8"
    dense = make_model()
    inject(dense, LoRAConfig(r=4))
    assert read_quantization(save_adapter(dense, tmp_path / "dense", "base")) is None
    # An export to PEFT loads the base dense.
    assert read_quantization(save_adapter(dense, tmp_path / "kept", "base", None, "nf4")) == "nf4"
    weights = {"a": torch.ones(1)}
    save_file(weights, tmp_path / WEIGHTS, {"format": "pt", "quantize": "nf3\x1b"})
    with pytest.raises(AdapterError, match=r"names the quantization 'nf3.*'; known are nf4, fp4"):
        read_quantization(tmp_path)
    for content in (b"", b"{}"):
        (tmp_path / WEIGHTS).write_bytes(content)
        assert read_quantization(tmp_path) is None
