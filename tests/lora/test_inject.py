"""Adapters on whole models: the layers, the parameter counts, disable, eject and merge."""

import pytest
import torch
from conftest import FAMILIES, make_model
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from lora.config import PROJECTIONS, ConfigError, LoRAConfig
from lora.injection import (
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


def make_tuned(family: str = "llama") -> PreTrainedModel:
    """Return a small model with adapters whose B is random."""
    model = make_model(family)
    inject(model, LoRAConfig(r=4, target_modules="all-linear"))
    for _, layer in lora_layers(model):
        nn.init.normal_(layer.lora_B, std=0.3)
    return model


@torch.no_grad()
def logits(model: nn.Module) -> torch.Tensor:
    return model(input_ids=IDS, use_cache=False).logits


SEVEN, FOUR = list(PROJECTIONS), list(PROJECTIONS[:4])
SHAPE = "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads"
SIZES = {
    "Qwen2.5-1.5B": (
        "qwen2",
        (1536, 8960, 28, 12, 2),
        151_936,
        True,
        8,
        SEVEN,
        1_543_714_304,
        9_232_384,
    ),
    "Qwen2.5-0.5B": (
        "qwen2",
        (896, 4864, 24, 14, 2),
        151_936,
        True,
        8,
        SEVEN,
        494_032_768,
        4_399_104,
    ),
    "TinyLlama-1.1B": (
        "llama",
        (2048, 5632, 22, 32, 4),
        32_000,
        False,
        16,
        FOUR,
        1_100_048_384,
        4_505_600,
    ),
    "SmolLM2-135M": (
        "llama",
        (576, 1536, 30, 9, 3),
        49_152,
        True,
        8,
        SEVEN,
        134_515_008,
        2_442_240,
    ),
}
"""Family, shape, vocabulary, tied embeddings, rank, targets, parameters of the base and of LoRA."""


@pytest.mark.parametrize("name", SIZES)
def test_models_of_full_size_have_these_numbers_of_parameters(name):
    family, shape, vocabulary, tied, r, targets, base, trainable = SIZES[name]
    sizes = dict(zip(SHAPE.split(), shape, strict=True))
    config = AutoConfig.for_model(family, vocab_size=vocabulary, tie_word_embeddings=tied, **sizes)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        inject(model, LoRAConfig(r=r, target_modules=targets))
    assert count_parameters(model) == (trainable, base + trainable)


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
def test_a_target_selects_these_layers(family, targets, expected):
    model = make_model(family)
    paths = list(match_targets(model, targets))
    assert {path.partition(".0.")[2] for path in paths if ".0." in path} == expected
    assert len(paths) == 2 * len(expected)
    assert inject(model, LoRAConfig(target_modules=targets)) == paths
    assert [path for path, _ in lora_layers(model)] == paths


@over_families
def test_all_linear_trains_only_adapters_and_leaves_the_output_head_alone(family):
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
def test_an_error_about_a_wrong_name_lists_the_names_that_exist(targets, tiny_model):
    wrong = targets if isinstance(targets, str) else targets[-1]
    with pytest.raises(
        ConfigError,
        match=f"is named {wrong}; this model has down_proj.*v_proj\\. Set `target_modules`",
    ):
        inject(tiny_model, LoRAConfig(target_modules=targets))
    assert not any(lora_layers(tiny_model))
    assert all(p.requires_grad for p in tiny_model.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"modules_to_save": ["score"]},
            "^no layer is named score; this model has .*embed_tokens.* Set `modules_to_save` to",
        ),
        (
            {"rank_pattern": {"query": 4}},
            "^`rank_pattern` names query, which is not an adapted layer; adapted layers are .*q_",
        ),
        ({"alpha_pattern": {"lm_head": 4}}, "^`alpha_pattern` names lm_head, which is not an"),
        ({"layers_to_transform": [2]}, "; choose from blocks 0 to 1$"),
        (
            {"target_modules": ["q_proj"], "modules_to_save": ["q_proj"]},
            "^`modules_to_save` trains every layer of `target_modules` in full",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_setting_that_matches_nothing_in_the_model_is_refused(settings, message, tiny_model):
    with pytest.raises(ConfigError, match=message):
        inject(tiny_model, LoRAConfig(**settings))
    assert not any(lora_layers(tiny_model))
    assert all(p.requires_grad for p in tiny_model.parameters())


def test_patterns_set_the_rank_and_the_scale_of_their_layers(tiny_model):
    inject(tiny_model, LoRAConfig(r=4, rank_pattern={"up_proj": 6}, alpha_pattern={"o_proj": 1}))
    block = tiny_model.model.layers[1]
    assert block.mlp.up_proj.lora_A.shape[0] == block.mlp.up_proj.lora_B.shape[1] == 6
    assert block.self_attn.v_proj.lora_A.shape[0] == 4
    assert block.self_attn.o_proj.config.scale == 1 / 4


def test_a_second_adapter_on_a_model_is_refused(tiny_model):
    inject(tiny_model, LoRAConfig(target_modules="q_proj"))
    with pytest.raises(ConfigError, match="has adapters already"):
        inject(tiny_model, LoRAConfig(target_modules="k_proj"))
    assert len(list(lora_layers(tiny_model))) == 2


def test_an_error_about_an_unknown_variant_lists_the_variants(tiny_model):
    with pytest.raises(ConfigError, match=r"^`variant` is 'nora'; choose lora, dora, pissa$"):
        inject(tiny_model, LoRAConfig(variant="nora"))


def test_adapters_are_enabled_again_after_an_error_and_after_a_nested_call():
    model, layers = make_tuned(), dict(lora_layers(make_tuned()))
    with adapters_disabled(model) as same:
        assert same is model
        with adapters_disabled(model):
            pass
        assert not any(layer.enabled for _, layer in lora_layers(model))
    assert [path for path, layer in lora_layers(model) if layer.enabled] == list(layers)
    with pytest.raises(KeyboardInterrupt), adapters_disabled(model):
        raise KeyboardInterrupt
    assert [path for path, layer in lora_layers(model) if layer.enabled] == list(layers)


@over_families
def test_eject_restores_the_original_module_objects(family):
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
def test_merging_keeps_the_outputs_of_every_family_and_the_shapes_of_its_weights(family):
    model, plain = make_tuned(family), make_model(family)
    before = logits(model)
    assert merge(model) is model
    torch.testing.assert_close(logits(model), before, atol=1e-4, rtol=0)
    assert (before - logits(plain)).abs().max() > 0.01
    assert not any(lora_layers(model))
    shapes = {name: value.shape for name, value in plain.state_dict().items()}
    assert {name: value.shape for name, value in model.state_dict().items()} == shapes
