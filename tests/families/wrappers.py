"""Models that see or hear, made small: their text part is what trains."""

from typing import Any

import torch
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from lit.model.architecture import model_class
from tests.families.table import SMALL

TEXT = SMALL | {
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "vocab_size_per_layer_input": 320,
    "hidden_size_per_layer_input": 8,
}
TOWER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "depth": 2,
    "num_heads": 4,
    "embed_dim": 32,
    "out_hidden_size": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "d_model": 32,
}
MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}}
GEMMA4 = {
    "global_head_dim": 8,
    "layer_types": ["sliding_attention", "full_attention"],
    "num_kv_shared_layers": 0,
}
WRAPPERS: dict[str, dict[str, Any]] = {
    "aria": {},
    "deepseek_vl": {},
    "exaone4_5": {},
    "gemma3": {},
    "gemma4": GEMMA4,
    "idefics3": {},
    "internvl": {},
    "lfm2_vl": {"layer_types": ["conv", "full_attention"]},
    "lighton_ocr": {},
    "llama4": {"intermediate_size_mlp": 48, "layer_types": ["chunked_attention", "full_attention"]},
    "llava": {},
    "llava_onevision": {},
    "mistral3": {},
    "mllama": {"cross_attention_layers": [1]},
    "qwen2_vl": MROPE,
    "qwen2_5_vl": MROPE,
    "qwen2_audio": {},
    "qwen3_vl": {},
    "qwen3_vl_moe": {},
    "qwen3_5": {"layer_types": ["linear_attention", "full_attention"]},
    "qwen3_5_moe": {"layer_types": ["linear_attention", "full_attention"]},
    "smolvlm": {},
    "video_llama_3": {},
    "voxtral": {},
}
"""Each type with what its text part needs beside ``TEXT``."""


def make_config(kind: str, **changes: Any) -> PretrainedConfig:
    """Return a small config of a type; changes are for its text part."""
    usual = AutoConfig.for_model(kind)
    text = usual.get_text_config()
    parts = {}
    for name, part in vars(usual).items():
        if isinstance(part, PretrainedConfig):
            sizes = TEXT | WRAPPERS.get(kind, {}) | changes if part is text else TOWER
            known = {key: value for key, value in sizes.items() if key in part.to_dict()}
            parts[name] = {"model_type": part.model_type, **known}
    return AutoConfig.for_model(kind, **parts)


def make_wrapper(kind: str, **changes: Any) -> PreTrainedModel:
    """Return a small model of a type with weights of the size that trained ones have."""
    torch.manual_seed(0)
    config = make_config(kind, **changes)
    model = model_class(config, kind).from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, parameter.shape[-1] ** -0.5)
    return model
