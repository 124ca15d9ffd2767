"""Going on from an adapter: it starts as what it was, and given settings must be its own."""

from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
from conftest import ADAPTERS, make_model, moved
from torch import Tensor, nn
from transformers import PreTrainedModel

from lora.config import PROJECTIONS, ConfigError, LoRAConfig
from lora.injection import inject, lora_layers, trainable_parameters
from lora.storage.adapter import save_adapter
from lora.storage.continuing import check_layers, continue_adapter, settings_of

WIDE = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
IDS = torch.randint(3, 320, (2, 11), generator=torch.Generator().manual_seed(0))
FOREIGN = [kind for kind in ADAPTERS if kind != "pissa"]  # PEFT's own fits only a changed base


def make_base(kind: str) -> PreTrainedModel:
    return make_model(**WIDE, **(ADAPTERS[kind].model or {}))


def logits(model: nn.Module) -> Tensor:
    return model(input_ids=IDS, use_cache=False).logits


def saved_by_us(kind: str, folder: Path) -> tuple[nn.Module, Path]:
    model = make_base(kind)
    inject(model, LoRAConfig(**({"r": 4, "target_modules": "all-linear"} | ADAPTERS[kind].ours)))
    return moved(model), save_adapter(model, folder, "some/model")


def saved_by_peft(kind: str, folder: Path) -> tuple[nn.Module, Path]:
    settings = {"r": 4, "target_modules": list(PROJECTIONS), "task_type": "CAUSAL_LM"}
    theirs = peft.get_peft_model(
        make_base(kind), peft.LoraConfig(**(settings | ADAPTERS[kind].theirs))
    )
    moved(theirs).save_pretrained(folder)
    return theirs, folder


@pytest.mark.parametrize(
    ("kind", "save"),
    [(kind, saved_by_us) for kind in ADAPTERS] + [(kind, saved_by_peft) for kind in FOREIGN],
)
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_every_kind_of_adapter_starts_as_it_was_and_trains_on(kind, save, tmp_path):
    trained, folder = save(kind, tmp_path)
    model = make_base(kind)
    dropout = ADAPTERS[kind].dropout
    continue_adapter(model, folder, replace(settings_of(folder), lora_dropout=dropout))
    torch.testing.assert_close(logits(model.eval()), logits(trained), atol=1e-4, rtol=1e-4)
    assert {layer.config.lora_dropout for _, layer in lora_layers(model)} == {dropout}
    logits(model).float().square().mean().backward()
    assert all(p.grad is not None for p in trainable_parameters(model).values())


GIVEN = {
    "r": ({"r": 2}, "`r` is 2, and the adapter has 4"),
    "alpha": ({"lora_alpha": 3}, "`lora_alpha` is 3, and the adapter has 16"),
    "a variant": ({"variant": "dora"}, "`variant` is dora, and the adapter has lora"),
    "PiSSA": ({"variant": "pissa"}, "`variant` is pissa, and the adapter has lora"),
    "rsLoRA": ({"use_rslora": True}, "`use_rslora` is True, and the adapter has False"),
    "ranks": ({"rank_pattern": {"q_proj": 2}}, "`rank_pattern` is {'q_proj': 2}, and the"),
    "fewer layers": (
        {"target_modules": ["q_proj"]},
        r"`target_modules` is \['q_proj'\], and the adapter .*'down_proj'.*only in the adapter",
    ),
    "one block": ({"layers_to_transform": [0]}, "layers.1.* is only in the adapter"),
    "a full layer": (
        {"modules_to_save": ["lm_head"]},
        r"`modules_to_save` is \['lm_head'\], and the adapter .* has \[\].*only in the settings",
    ),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a LoRA on every linear layer."""
    return saved_by_us("lora", tmp_path_factory.mktemp("plain"))[1]


@pytest.mark.parametrize("name", GIVEN)
def test_a_setting_that_is_not_the_adapters_is_refused_with_both_values(name, plain):
    changes, said = GIVEN[name]
    model = make_base("lora")
    with pytest.raises(ConfigError, match=said):
        continue_adapter(model, plain, replace(settings_of(plain), **changes))
    assert not any(lora_layers(model))
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    "changes",
    [
        {"target_modules": "all-linear"},
        {"target_modules": ["mlp", "attention"]},
        {"lora_alpha": 16.0},
        {"lora_dropout": 0.3, "loraplus_lr_ratio": 16.0, "neftune_alpha": 5.0},
    ],
)
def test_equal_values_in_other_words_and_settings_of_the_training_are_taken(changes, plain):
    given = replace(settings_of(plain), **changes)
    used = check_layers(make_base("lora").to("meta"), plain, given)
    assert (used.lora_dropout, used.loraplus_lr_ratio) == (
        given.lora_dropout,
        given.loraplus_lr_ratio,
    )
    assert used.neftune_alpha == given.neftune_alpha
