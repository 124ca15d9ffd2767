"""Layers that ``exclude_modules`` leaves out, and what is saved of it; PEFT selects the same."""

import json
import warnings

import peft
import pytest
import torch
from conftest import make_model
from mixed_families import make_mixed
from torch import nn

from lora.config import PROJECTIONS, ConfigError, LoRAConfig
from lora.injection import count_parameters, inject, lora_layers
from lora.storage.adapter import CONFIG, load_adapter, save_adapter
from lora.targets import match_targets

IDS = torch.randint(3, 320, (2, 11), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS, use_cache=False).logits


@pytest.mark.parametrize(
    "targets", ["projections", "all-linear", "mlp", "down_proj", ["attention", "mlp.down_proj"]]
)
@pytest.mark.parametrize("name", ["down_proj", "mlp.down_proj", "layers.0.mlp.down_proj"])
def test_a_name_takes_its_layers_out_of_every_kind_of_target(targets, name):
    names = [*([targets] if isinstance(targets, str) else targets), "q_proj"]
    model, every = make_model(), match_targets(make_model(), names)
    gone = {path for path in every if path.endswith("." + name)}
    assert len(gone) == (1 if "layers" in name else 2)
    paths = inject(model, LoRAConfig(target_modules=names, exclude_modules=[name]))
    assert set(paths) == every.keys() - gone


@pytest.mark.parametrize(
    ("family", "excluded"),
    [
        ("llama", ["down_proj"]),
        ("llama", ["layers.0.self_attn.q_proj", "layers.1.mlp.up_proj", "k_proj"]),
        ("gpt2", ["attn.c_proj"]),
        ("gpt2", ["h.1.mlp.c_proj", "c_attn"]),
    ],
)
def test_peft_excludes_the_same_layers_and_loads_what_is_saved(family, excluded, tmp_path):
    model = make_model(family)
    names = sorted({path.rpartition(".")[2] for path in match_targets(model, "projections")})
    paths = inject(model, LoRAConfig(r=4, exclude_modules=excluded))
    config = peft.LoraConfig(r=4, target_modules=names, exclude_modules=excluded)
    theirs = peft.get_peft_model(make_model(family), config)
    assert sorted(theirs.base_model.targeted_module_names) == sorted(paths)
    for _, layer in lora_layers(model):
        nn.init.normal_(layer.lora_B, std=0.3)
    save_adapter(model, tmp_path, base="some/model")
    saved = json.loads((tmp_path / CONFIG).read_text("utf-8"))
    # PEFT writes what the person gave.
    assert saved["exclude_modules"] == excluded
    again, loaded = make_model(family), peft.PeftModel.from_pretrained(make_model(family), tmp_path)
    assert load_adapter(again, tmp_path).exclude_modules == excluded
    assert [path for path, _ in lora_layers(again)] == paths
    assert torch.equal(logits(again), logits(model))
    torch.testing.assert_close(logits(loaded.eval()), logits(model), atol=1e-5, rtol=0)


def test_an_adapter_of_peft_that_excludes_names_without_effect_loads(tmp_path):
    settings = {"target_modules": ["q_proj", "up_proj"], "exclude_modules": ["lm_head", "up_proj"]}
    theirs = peft.get_peft_model(make_model(), peft.LoraConfig(r=4, **settings)).eval()
    for name, parameter in theirs.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    theirs.save_pretrained(tmp_path)
    model = make_model()
    assert load_adapter(model, tmp_path).exclude_modules == ["up_proj"]
    torch.testing.assert_close(logits(model), logits(theirs), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("targets", "names", "message"),
    [
        (
            "projections",
            ["q_proj", "query"],
            "^`exclude_modules` names query, and no linear layer is named so; `target_modules` "
            "selects down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj$",
        ),
        ("all-linear", ["lm_head"], "names lm_head, and"),
        ("attention", ["mlp"], "names mlp, and .* selects k_proj, o_proj, q_proj, v_proj$"),
        (["q_proj"], ["q_proj"], "^`exclude_modules` leaves out every layer .*, q_proj: take a"),
    ],
)
def test_an_unknown_name_to_exclude_and_one_that_leaves_nothing_are_refused(
    targets, names, message, tiny_model
):
    with pytest.raises(ConfigError, match=message):
        inject(tiny_model, LoRAConfig(target_modules=targets, exclude_modules=names))
    assert not any(lora_layers(tiny_model))


PEFT_FAMILIES = ["llama", "gpt2", "falcon", "bloom", "mixtral", "phimoe", "mamba", "jamba", "lfm2"]


@pytest.mark.parametrize("family", PEFT_FAMILIES)
def test_peft_computes_the_same_with_the_default_targets(family, tmp_path):
    model, base = make_mixed(family), make_mixed(family)
    plain = logits(base)
    inject(model, LoRAConfig(r=2))
    for _, layer in lora_layers(model):
        nn.init.normal_(layer.lora_B, std=0.3)
    save_adapter(model, tmp_path, base="some/model")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        theirs = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    assert not [str(w.message) for w in caught if "adapter key" in str(w.message)]
    torch.testing.assert_close(logits(theirs), logits(model), atol=1e-4, rtol=0)
    assert (logits(model) - plain).abs().max() > 0.001


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral", "gemma2", "smollm3"])
def test_the_default_is_the_seven_projections_where_a_model_has_these(family):
    model, named = make_model(family), make_model(family)
    assert inject(model, LoRAConfig()) == inject(
        named, LoRAConfig(target_modules=list(PROJECTIONS))
    )
    assert count_parameters(model) == count_parameters(named)
