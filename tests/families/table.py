"""Model types, how each is made small, and what becomes of its packed rows."""

from typing import Any, NamedTuple

IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SMALL = IDS | {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
}
WINDOW = {"sliding_window": 5}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
MANY = EXPERTS | {"num_experts": 4}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}
DELTA = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
MLA = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "original_max_position_embeddings": 12,
}
DYNAMIC = {
    "rope_type": "dynamic",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 12,
}


LEAKS, OWN, ERROR = "rows would see each other", "an attention of its own", "cannot be packed ("
NO_LENGTHS, SINKS = "does not pass the row lengths", "needs s_aux in attention"


class Family(NamedTuple):
    """A model type made small, and what becomes of its rows."""

    changes: dict[str, Any]
    reason: str | None = None
    """Part of the reason why its rows are not packed; None where they are."""
    refused: bool = False
    """Whether the family is refused by name, because its loss is not computed right."""
    mute: bool = False
    """Whether transformers fails to generate with the family, alone too."""
    model_type: str | None = None
    """The type in transformers, where it is not the key of the table."""


def hybrid(kinds: list[str], **changes: Any) -> dict[str, Any]:
    """Layers of several kinds, in every name that a config has for them."""
    return SMALL | {"num_hidden_layers": len(kinds), "layer_types": kinds} | changes


GPT = IDS | {"vocab_size": 320, "n_embd": 32, "n_layer": 2, "n_head": 4}
BART = IDS | {"vocab_size": 320, "d_model": 32, "decoder_layers": 2, "decoder_ffn_dim": 48}
STATE = IDS | {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
WITH_CONVOLUTION = ["conv", "full_attention"]
WITH_DELTA = ["linear_attention", "full_attention"]
ROUTED = EXPERTS | {"n_routed_experts": 4, "n_group": 2, "topk_group": 1}
INDEXED = ROUTED | MLA | {"index_topk": 8, "index_n_heads": 2, "index_head_dim": 16}

FAMILIES: dict[str, Family] = {
    # Attention alone.
    **dict.fromkeys(
        (
            *("llama", "qwen2", "qwen3", "olmo2", "smollm3", "granite", "cohere", "helium", "glm4"),
            *("exaone4", "hunyuan_v1_dense", "nanochat", "seed_oss", "arcee", "apertus", "phi"),
            *("diffllama", "persimmon", "bitnet", "vaultgemma", "jais2", "internlm3", "ernie4_5"),
            *("gpt_neox", "biogpt", "cwm", "hrm_text"),
        ),
        Family(SMALL),
    ),
    # A window that some rows exceed.
    **dict.fromkeys(
        ("mistral", "phi3", "gemma2", "gemma3_text", "starcoder2", "cohere2", "olmo3", "ministral"),
        Family(SMALL | WINDOW),
    ),
    "modernbert-decoder": Family(SMALL | {"local_attention": 8}, refused=True),
    "gemma3n_text": Family(
        hybrid(
            ["sliding_attention", "full_attention"],
            **WINDOW,
            intermediate_size=[48, 48],
            vocab_size_per_layer_input=320,
            hidden_size_per_layer_input=8,
            num_kv_shared_layers=0,
            laurel_rank=4,
            altup_num_inputs=2,
            activation_sparsity_pattern=[0.0, 0.0],
        )
    ),
    "gemma4_text": Family(
        hybrid(
            ["sliding_attention", "full_attention"],
            **WINDOW,
            vocab_size_per_layer_input=320,
            hidden_size_per_layer_input=8,
            num_kv_shared_layers=0,
            global_head_dim=8,
        )
    ),
    "gpt2": Family(GPT),
    "gpt_bigcode": Family(GPT),
    "ctrl": Family(GPT | {"dff": 48}),
    "opt": Family(SMALL | {"word_embed_proj_dim": 32, "ffn_dim": 48}),
    "minicpm3": Family(SMALL | MLA | {"head_dim": 16}),
    # Experts, whose products round by how many tokens they were sent.
    **dict.fromkeys(
        ("mixtral", "phimoe", "granitemoe", "granitemoeshared", "minimax_m2"),
        Family(SMALL | LOCAL),
    ),
    **dict.fromkeys(
        ("qwen3_moe", "qwen2_moe", "olmoe", "flex_olmo", "afmoe", "exaone_moe", "mellum", "laguna"),
        Family(SMALL | MANY | {"shared_expert_intermediate_size": 16}),
    ),
    "jetmoe": Family(SMALL | LOCAL | {"kv_channels": 8}),
    "solar_open": Family(SMALL | ROUTED | {"n_group": 1}),
    "glm4_moe": Family(SMALL | ROUTED | {"n_group": 1, "first_k_dense_replace": 1}),
    "deepseek_v3": Family(SMALL | MLA | ROUTED | {"first_k_dense_replace": 1}),
    "deepseek_v2": Family(SMALL | MLA | ROUTED),
    # Frequencies that depend on the longest row.
    "phi3, longrope": Family(
        SMALL | {"rope_parameters": LONGROPE, "original_max_position_embeddings": 12},
        model_type="phi3",
    ),
    "llama, dynamic": Family(SMALL | {"rope_parameters": DYNAMIC}, model_type="llama"),
    # Chunks of a row.
    "llama4_text": Family(
        hybrid(
            ["chunked_attention", "full_attention"],
            **LOCAL | {"num_experts_per_tok": 1},
            attention_chunk_size=5,
            intermediate_size_mlp=48,
        ),
        "chunks of a row",
    ),
    # Attention that is not given to a function, or needs more.
    **dict.fromkeys(("stablelm", "nemotron"), Family(SMALL, NO_LENGTHS)),
    "doge": Family(SMALL, "changes its mask"),
    "gpt_oss": Family(SMALL | LOCAL | WINDOW, SINKS),
    "granite_swa": Family(SMALL, SINKS),
    "gptj": Family(GPT | {"rotary_dim": 4}, OWN),
    "codegen": Family(GPT | {"rotary_dim": 4}, OWN),
    "gpt_neo": Family(
        SMALL
        | {"num_layers": 2, "num_heads": 4, "window_size": 5}
        | {"attention_types": [[["global", "local"], 1]]},
        OWN,
    ),
    "bloom": Family(GPT | {"hidden_size": 32}, OWN),
    "falcon": Family({k: v for k, v in SMALL.items() if k != "head_dim"}, OWN),
    "mpt": Family(IDS | {"vocab_size": 320, "d_model": 32, "n_layers": 2, "n_heads": 4}, OWN),
    "xglm": Family(
        IDS
        | {"vocab_size": 320, "d_model": 32, "ffn_dim": 48, "num_layers": 2}
        | {"attention_heads": 4},
        OWN,
    ),
    "cpmant": Family(
        {"vocab_size": 320, "hidden_size": 32, "num_attention_heads": 4, "dim_head": 8}
        | {"dim_ff": 48, "num_hidden_layers": 2}
        | {"prompt_types": 4, "prompt_length": 4, "segment_types": 4},
        OWN,
    ),
    "bart": Family(BART | {"decoder_attention_heads": 4}, "rows would change by"),
    # The tokens of a row that attend are chosen by their values.
    "deepseek_v32": Family(SMALL | INDEXED | {"first_k_dense_replace": 1}, ERROR),
    "glm_moe_dsa": Family(SMALL | INDEXED | {"n_group": 1}, ERROR),
    # Convolutions and states that go on from row to row.
    "lfm2": Family(hybrid(WITH_CONVOLUTION), LEAKS),
    "lfm2_moe": Family(hybrid(WITH_CONVOLUTION, **MANY, num_dense_layers=1), LEAKS),
    "falcon_h1": Family(
        SMALL | MAMBA | {"mamba_d_ssm": 64, "mamba_chunk_size": 8} | {"lm_head_multiplier": 0.1},
        LEAKS,
    ),
    "bamba": Family(SMALL | MAMBA | {"attn_layer_indices": [1], "mamba_chunk_size": 8}, LEAKS),
    "jamba": Family(
        SMALL
        | {"num_experts": 2, "expert_layer_period": 2, "expert_layer_offset": 1}
        | {"attn_layer_period": 2, "attn_layer_offset": 1}
        | {"mamba_d_state": 8, "mamba_dt_rank": 4, "use_mamba_kernels": False},
        LEAKS,
    ),
    "zamba": Family(
        SMALL
        | {"num_hidden_layers": 4, "layers_block_type": ["mamba", "hybrid"] * 2}
        | {"attention_head_dim": 16, "mamba_d_state": 8, "n_mamba_heads": 2}
        | {"use_mamba_kernels": False},
        LEAKS,
    ),
    "zamba2": Family(
        SMALL
        | {"num_hidden_layers": 3, "layers_block_type": ["mamba", "hybrid", "mamba"]}
        | {"n_mamba_heads": 8, "mamba_headdim": 8, "mamba_ngroups": 1, "chunk_size": 8}
        | {"attention_head_dim": 16, "mamba_d_state": 8, "num_mem_blocks": 1},
        LEAKS,
    ),
    "granitemoehybrid": Family(
        hybrid(["mamba", "attention"], **LOCAL, **MAMBA)
        | {"shared_intermediate_size": 16, "mamba_chunk_size": 8},
        LEAKS,
    ),
    "nemotron_h": Family(
        SMALL
        | {"layers_block_type": ["mamba", "attention", "mlp"], "ssm_state_size": 8}
        | {"mamba_num_heads": 8, "mamba_head_dim": 8, "n_groups": 1, "chunk_size": 8},
        LEAKS,
    ),
    "minimax": Family(hybrid(WITH_DELTA, **LOCAL, block_size=8), LEAKS),
    "recurrent_gemma": Family(
        SMALL | {"lru_width": 32, "attention_window_size": 5, "num_hidden_layers": 3}, LEAKS
    ),
    "bailing_hybrid": Family(
        hybrid(["linear_attention", "full_attention"], **MLA | ROUTED, num_experts=4), LEAKS
    ),
    "mamba": Family(STATE, LEAKS),
    "falcon_mamba": Family(STATE, LEAKS),
    "mamba2": Family(
        STATE | {"num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 8}, LEAKS
    ),
    "xlstm": Family(
        STATE
        | {"embedding_dim": 32, "num_blocks": 2, "num_heads": 4, "chunk_size": 8}
        | {"qk_dim_factor": 1.0},
        LEAKS,
        mute=True,
    ),
    "rwkv": Family(STATE | {"attention_hidden_size": 32}, OWN),
    # Recurrences that refuse rows that lie end to end themselves.
    "qwen3_5_text": Family(hybrid(WITH_DELTA, **DELTA), ERROR),
    "qwen3_next": Family(
        hybrid(WITH_DELTA, **DELTA, **MANY, shared_expert_intermediate_size=16), ERROR
    ),
    "olmo_hybrid": Family(hybrid(WITH_DELTA, **DELTA), ERROR),
}
"""The rows that the tests lay end to end are longer than each window, chunk and convolution."""

FAST = (
    *("llama", "mistral", "solar_open", "phi3, longrope", "llama4_text", "stablelm", "gpt_neo"),
    *("deepseek_v32", "lfm2", "falcon_h1", "jamba", "zamba2", "granitemoehybrid", "qwen3_5_text"),
)
"""Types that the normal test run covers; ``make families`` covers all."""
