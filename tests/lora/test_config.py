"""The settings of an adapter: limits, scale, and the settings of single layers."""

import dataclasses
import math
import re

import pytest

from lora.config import ConfigError, LoRAConfig


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("r", 0),
        ("r", -4),
        ("lora_alpha", 0),
        ("lora_alpha", -1),
        ("lora_alpha", math.nan),
        ("lora_alpha", math.inf),
        ("lora_alpha", 10**400),
        ("lora_dropout", 1),
        ("lora_dropout", -0.1),
        ("lora_dropout", math.nan),
        ("target_modules", []),
        ("target_modules", ""),
        ("layers_to_transform", []),
        ("layers_to_transform", [-1]),
        ("loraplus_lr_ratio", 0),
        ("loraplus_lr_ratio", math.inf),
        ("neftune_alpha", -1),
        ("neftune_alpha", math.nan),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_value_out_of_range_is_refused_by_the_name_of_its_setting(setting, value):
    shown = "empty" if setting == "target_modules" else re.escape(str(value))
    with pytest.raises(ConfigError, match=f"^`{setting}` is {shown}; "):
        LoRAConfig(**{setting: value})


@pytest.mark.parametrize(
    ("setting", "value"), [("rank_pattern", {"q_proj": 0}), ("alpha_pattern", {"q_proj": -1})]
)
def test_a_pattern_out_of_range_is_refused_by_the_name_of_its_layer(setting, value):
    with pytest.raises(ConfigError, match=rf"^`{setting}`\['q_proj'\] is {value['q_proj']}; "):
        LoRAConfig(**{setting: value})


@pytest.mark.parametrize(
    ("r", "alpha", "use_rslora", "scale"),
    [(8, 16, False, 2.0), (8, 4.0, False, 0.5), (16, 8, True, 2.0), (8, 16, True, 16 / 8**0.5)],
)
def test_the_scale_is_alpha_divided_by_the_rank_or_by_its_root(r, alpha, use_rslora, scale):
    config = LoRAConfig(r=r, lora_alpha=alpha, use_rslora=use_rslora)
    assert math.isclose(config.scale, scale)


def test_the_first_name_that_matches_a_layer_gives_its_rank_and_alpha():
    config = LoRAConfig(
        r=4,
        rank_pattern={"layers.1.mlp.up_proj": 7, "up_proj": 6, "q_proj": 2},
        alpha_pattern={"o_proj": 1},
    )
    layers = {
        "layers.1.mlp.up_proj": (7, 16 / 7),
        "layers.0.mlp.up_proj": (6, 16 / 6),
        "layers.0.self_attn.q_proj": (2, 16 / 2),
        "layers.0.self_attn.o_proj": (4, 1 / 4),
        "layers.0.self_attn.seq_proj": (4, 16 / 4),
    }
    assert {path: (config.at(path).r, config.at(path).scale) for path in layers} == layers


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        LoRAConfig().r = 4
