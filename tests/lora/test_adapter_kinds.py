"""What every kind of adapter guarantees, on dense and on quantized bases."""

import json

import peft
import pytest
import torch
from conftest import ADAPTERS, make_model
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from lora.config import PROJECTIONS, LoRAConfig
from lora.full_layers import full_layers
from lora.injection import (
    VARIANTS,
    adapted_layers,
    adapters_disabled,
    count_parameters,
    eject,
    inject,
    lora_layers,
    merge,
    quantize_model,
    trainable_parameters,
)
from lora.storage.adapter import load_adapter, save_adapter

IDS = torch.randint(3, 320, (2, 11), generator=torch.Generator().manual_seed(0))
WIDE = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
BASES = {"dense": None, "nf4": "nf4", "int8": "int8"}
over_kinds = pytest.mark.parametrize("kind", ADAPTERS)
over_bases = pytest.mark.parametrize("base", BASES)


def make_base(kind: str, base: str = "dense") -> PreTrainedModel:
    """Return a small model without adapters in train mode, quantized if ``base`` says so."""
    model = make_model(**WIDE, **(ADAPTERS[kind].model or {}))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # transformers sets them to zero
            nn.init.normal_(parameter, std=0.1)
    if BASES[base]:
        quantize_model(model, BASES[base], torch.float32)
    # In eval mode on a CPU, bitsandbytes' int8 also rounds the input.
    return model.train()


def make_tuned(kind: str, base: str = "dense", new: bool = False, **settings) -> PreTrainedModel:
    """Return a small model with adapters; unless they are to be new, their tensors are random."""
    model = make_base(kind, base)
    torch.manual_seed(0)
    settings = {"r": 4, "target_modules": "all-linear"} | ADAPTERS[kind].ours | settings
    inject(model, LoRAConfig(**settings))
    if not new:
        with torch.no_grad():
            for parameter in trainable_parameters(model).values():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.train()


def logits(model: nn.Module) -> Tensor:
    return model(input_ids=IDS, use_cache=False).logits


def test_every_variant_is_in_the_table_of_kinds():
    assert {kind.ours.get("variant", "lora") for kind in ADAPTERS.values()} == set(VARIANTS)


@over_kinds
@over_bases
@torch.no_grad()
def test_a_new_adapter_changes_no_bit_of_the_logits(kind, base):
    model = make_tuned(kind, base, new=True, lora_dropout=ADAPTERS[kind].dropout)
    before, after = logits(model), logits(eject(model))
    # The rows of experts are multiplied in other groups than the base multiplies them.
    torch.testing.assert_close(before, after, rtol=0, atol=1e-5 if "experts" in kind else 0)


@over_kinds
@over_bases
def test_gradients_reach_every_tensor_of_the_adapter_and_no_other(kind, base):
    model = make_tuned(kind, base)
    logits(model).square().sum().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == set(trainable_parameters(model))
    adapter = {
        f"{path}.{name}"
        for path, layer in adapted_layers(model)
        for name, _ in layer.named_parameters()
        if not name.startswith("base.")
    }
    assert all(name in adapter or ".trained." in name for name in reached)


@over_kinds
@over_bases
@torch.no_grad()
def test_a_merged_model_is_dense_and_computes_the_same(kind, base):
    model, plain = make_tuned(kind, base), make_model(**WIDE, **(ADAPTERS[kind].model or {}))
    before, paths = logits(model), [path for path, _ in lora_layers(model)]
    with adapters_disabled(model):
        assert (before - logits(model)).abs().max() > 0.01
    merge(model)
    torch.testing.assert_close(logits(model), before, atol=1e-4, rtol=1e-4)
    if base == "dense":
        assert model.state_dict().keys() == plain.state_dict().keys()
    assert all(type(model.get_submodule(path)) is nn.Linear for path in paths)
    # Tied weights are still tied, unless one of them trained apart.
    apart = not ADAPTERS[kind].ours.get("ensure_weight_tying", True)
    more = plain.get_input_embeddings().weight.numel() if apart else 0
    assert count_parameters(model).total == count_parameters(plain).total + more


@over_kinds
@over_bases
@torch.no_grad()
def test_a_disabled_or_ejected_adapter_leaves_the_base_bit_for_bit(kind, base):
    model = make_tuned(kind, base)
    before, plain = logits(model), logits(make_base(kind, base))
    with adapters_disabled(model):
        assert torch.equal(logits(model), plain)
    assert torch.equal(logits(model), before)
    assert torch.equal(logits(eject(model)), plain)
    assert not [*adapted_layers(model), *full_layers(model)]


@over_kinds
@over_bases
@torch.no_grad()
def test_a_saved_adapter_loads_to_the_same_logits_and_saves_to_the_same_bytes(kind, base, tmp_path):
    model, other = make_tuned(kind, base), make_base(kind, base)
    config = load_adapter(other, save_adapter(model, tmp_path / "one", base="some/model"))
    torch.testing.assert_close(logits(other.train()), logits(model), atol=1e-5, rtol=1e-5)
    assert not config.use_rslora
    assert not config.rank_pattern
    save_adapter(other, tmp_path / "two", base="some/model")
    files = [path.name for path in (tmp_path / "one").iterdir()]
    assert len(files) == 2
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@over_kinds
@torch.no_grad()
def test_peft_computes_the_same_from_a_saved_adapter(kind, tmp_path):
    model = make_tuned(kind)
    save_adapter(model, tmp_path, base="some/model")
    theirs = peft.PeftModel.from_pretrained(make_base(kind), tmp_path)
    torch.testing.assert_close(logits(theirs.eval()), logits(model.eval()), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in ADAPTERS if kind != "pissa"])
@torch.no_grad()
def test_an_adapter_that_peft_saved_computes_the_same(kind, tmp_path):
    settings = {"target_modules": [*PROJECTIONS]} | ADAPTERS[kind].theirs
    config = peft.LoraConfig(r=4, **settings)
    theirs = peft.get_peft_model(make_base(kind), config)
    for parameter in theirs.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    theirs.save_pretrained(tmp_path)
    ours = make_base(kind)
    load_adapter(ours, tmp_path)
    torch.testing.assert_close(logits(ours.eval()), logits(theirs.eval()), atol=2e-5, rtol=1e-5)
    with adapters_disabled(ours):
        base = logits(ours)
    assert (logits(ours) - base).abs().max() > 0.01


@torch.no_grad()
def test_a_pissa_adapter_that_peft_converted_to_lora_computes_the_same(tmp_path):
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights="pissa")
    theirs = peft.get_peft_model(make_base("pissa"), config)
    theirs.peft_config["default"].init_lora_weights = True
    theirs.save_pretrained(tmp_path / "start")
    theirs.peft_config["default"].init_lora_weights = "pissa"
    for parameter in theirs.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    theirs.save_pretrained(
        tmp_path / "difference", path_initial_model_for_weight_conversion=tmp_path / "start"
    )
    ours = make_base("pissa")
    assert load_adapter(ours, tmp_path / "difference").r == 8
    torch.testing.assert_close(logits(ours.eval()), logits(theirs.eval()), atol=2e-5, rtol=1e-5)


@over_kinds
def test_a_saved_adapter_has_one_rank_one_integer_alpha_and_no_patterns(kind, tmp_path):
    save_adapter(make_tuned(kind), tmp_path, base="some/model")
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert isinstance(settings["lora_alpha"], int)
    assert not settings["use_rslora"]
    assert not settings["rank_pattern"]
    assert not settings["alpha_pattern"]
    weights = load_file(tmp_path / "adapter_model.safetensors")
    experts = (ADAPTERS[kind].model or {}).get("num_experts", 1)
    ranks = {
        w.shape[0] // (experts if ".experts." in name else 1)
        for name, w in weights.items()
        if name.endswith("lora_A.weight")
    }
    assert ranks == {settings["r"]}
    assert settings["r"] == {"pissa": 8}.get(kind, 6 if "patterns" in kind else 4)
