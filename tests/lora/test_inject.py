"""Adapters on whole models: which layers, how many parameters, on and off again."""

import peft
import pytest
import torch
from conftest import FAMILIES, make_model
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from lora.config import PROJECTIONS, ConfigError, LoRAConfig
from lora.inject import (
    adapters_disabled,
    count_parameters,
    eject,
    inject,
    lora_layers,
    merge,
    trainable_parameters,
)
from lora.layer import LoRALinear
from lora.targets import match_targets

over_families = pytest.mark.parametrize("family", FAMILIES)
IDS = torch.randint(3, 320, (2, 11), generator=torch.Generator().manual_seed(0))


def make_tuned(family: str = "llama", targets: str | list[str] = "all-linear") -> PreTrainedModel:
    """A small model with adapters whose update can be seen."""
    model = make_model(family)
    inject(model, LoRAConfig(r=4, target_modules=targets))
    for _, layer in lora_layers(model):
        nn.init.normal_(layer.lora_B, std=0.3)
    return model


@torch.no_grad()
def logits(model: nn.Module) -> torch.Tensor:
    return model(input_ids=IDS, use_cache=False).logits


SEVEN, FOUR = list(PROJECTIONS), list(PROJECTIONS[:4])
SHAPE = "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads"
SIZES = {
    "Qwen2.5-1.5B": ("qwen2", (1536, 8960, 28, 12, 2), 151_936, True, 8, SEVEN, 9_232_384),
    "Qwen2.5-0.5B": ("qwen2", (896, 4864, 24, 14, 2), 151_936, True, 8, SEVEN, 4_399_104),
    "TinyLlama-1.1B": ("llama", (2048, 5632, 22, 32, 4), 32_000, False, 16, FOUR, 4_505_600),
    "SmolLM2-135M": ("llama", (576, 1536, 30, 9, 3), 49_152, True, 8, SEVEN, 2_442_240),
}


@pytest.mark.parametrize("name", SIZES)
def test_full_size_models_train_as_many_parameters_as_in_peft(name):
    family, shape, words, tied, r, targets, expected = SIZES[name]
    sizes = dict(zip(SHAPE.split(), shape, strict=True))
    config = AutoConfig.for_model(family, vocab_size=words, tie_word_embeddings=tied, **sizes)
    with torch.device("meta"):
        ours, theirs = (AutoModelForCausalLM.from_config(config) for _ in range(2))
        inject(ours, LoRAConfig(r=r, target_modules=targets))
        theirs = peft.get_peft_model(theirs, peft.LoraConfig(r=r, target_modules=targets))
    assert count_parameters(ours).trainable == expected
    assert tuple(count_parameters(ours)) == theirs.get_nb_trainable_parameters()


ATTENTION = {f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj")}
MLP = {f"mlp.{name}" for name in ("gate_proj", "up_proj", "down_proj")}


@pytest.mark.parametrize(
    ("family", "targets", "expected"),
    [
        ("llama", "all-linear", ATTENTION | MLP),
        ("llama", "attention", ATTENTION),
        ("llama", "mlp", MLP),
        ("llama", "q_proj", {"self_attn.q_proj"}),
        ("llama", ["q_proj", "down_proj"], {"self_attn.q_proj", "mlp.down_proj"}),
        ("llama", ["mlp", "up_proj", "k_proj"], MLP | {"self_attn.k_proj"}),
        ("phi3", "attention", {"self_attn.qkv_proj", "self_attn.o_proj"}),
        ("phi3", "mlp", {"mlp.gate_up_proj", "mlp.down_proj"}),
        ("gpt2", "all-linear", {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"}),
        ("gpt2", "attention", {"attn.c_attn", "attn.c_proj"}),
        ("gpt2", "c_proj", {"attn.c_proj", "mlp.c_proj"}),
        ("gpt2", ["attn.c_proj"], {"attn.c_proj"}),
        ("gpt_neox", "attention", {"attention.query_key_value", "attention.dense"}),
        ("opt", "mlp", {"fc1", "fc2"}),
    ],
)
def test_targets_name_these_layers(family, targets, expected):
    model = make_model(family)
    paths = list(match_targets(model, targets))
    assert {path.partition(".0.")[2] for path in paths if ".0." in path} == expected
    assert len(paths) == 2 * len(expected)
    assert inject(model, LoRAConfig(target_modules=targets)) == paths
    assert [path for path, _ in lora_layers(model)] == paths


@over_families
def test_all_linear_trains_adapters_alone_and_spares_the_output_head(family):
    model = make_model(family)
    head = model.get_output_embeddings()
    assert inject(model, LoRAConfig(r=4, target_modules="all-linear"))
    assert model.get_output_embeddings() is head
    assert not isinstance(head, LoRALinear)
    expected = {f"{path}.{name}" for path, _ in lora_layers(model) for name in ("lora_A", "lora_B")}
    assert set(trainable_parameters(model)) == expected
    assert (
        0
        < count_parameters(model).trainable
        == sum(p.numel() for p in trainable_parameters(model).values())
    )


@pytest.mark.parametrize(
    "targets", ["proj", "q_pro", "lm_head", "embed_tokens", "self_attn", ["q_proj", "query"]]
)
def test_a_wrong_name_is_answered_with_the_names_that_exist(targets, tiny_model):
    wrong = targets if isinstance(targets, str) else targets[-1]
    with pytest.raises(ConfigError, match=f"is named {wrong}; this model has down_proj.*v_proj"):
        inject(tiny_model, LoRAConfig(target_modules=targets))
    assert not any(lora_layers(tiny_model))
    assert all(p.requires_grad for p in tiny_model.parameters())


def test_a_model_takes_one_adapter(tiny_model):
    inject(tiny_model, LoRAConfig(target_modules="q_proj"))
    with pytest.raises(ConfigError, match="has adapters already"):
        inject(tiny_model, LoRAConfig(target_modules="k_proj"))
    assert len(list(lora_layers(tiny_model))) == 2


def test_an_unknown_variant_is_answered_with_those_that_exist(tiny_model):
    with pytest.raises(ConfigError, match=r"'nora'; there are .*lora"):
        inject(tiny_model, LoRAConfig(variant="nora"))


def test_disabled_shows_the_base_and_the_adapter_comes_back():
    model, base = make_tuned(), logits(make_model())
    before = logits(model)
    with adapters_disabled(model) as same, adapters_disabled(model):
        assert same is model
        torch.testing.assert_close(logits(model), base, atol=1e-6, rtol=0)
    assert (before - base).abs().max() > 0.1
    assert torch.equal(logits(model), before)
    with pytest.raises(KeyboardInterrupt), adapters_disabled(model):
        raise KeyboardInterrupt
    assert torch.equal(logits(model), before)


@over_families
def test_eject_gives_back_the_very_modules(family):
    model = make_model(family)
    modules, weights = dict(model.named_modules()), model.state_dict()
    before = logits(model)
    inject(model, LoRAConfig(target_modules="all-linear"))
    assert eject(model) is model
    after = dict(model.named_modules())
    assert modules.keys() == after.keys()
    assert all(after[path] is module for path, module in modules.items())
    assert weights.keys() == model.state_dict().keys()
    assert torch.equal(logits(model), before)


@over_families
@pytest.mark.parametrize("targets", ["attention", "all-linear"])
def test_merging_changes_no_output_and_leaves_a_plain_model(family, targets):
    model, plain = make_tuned(family, targets), make_model(family)
    before = logits(model)
    assert merge(model) is model
    torch.testing.assert_close(logits(model), before, atol=1e-4, rtol=0)
    assert (before - logits(plain)).abs().max() > 0.01
    assert not any(lora_layers(model))
    shapes = {name: value.shape for name, value in plain.state_dict().items()}
    assert {name: value.shape for name, value in model.state_dict().items()} == shapes
