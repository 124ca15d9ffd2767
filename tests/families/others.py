"""Model types that the sweep of docs/models.md takes beside those of the other tests."""

from typing import Any

from tests.families.table import DELTA, LOCAL, MAMBA, MANY, MLA, SMALL

ALL = (
    SMALL
    | MLA
    | LOCAL
    | MANY
    | MAMBA
    | DELTA
    | {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "n_shared_experts": 1}
    | {"first_k_dense_replace": 1, "shared_expert_intermediate_size": 16}
    | {"index_topk": 8, "index_n_heads": 2, "index_head_dim": 16}
)
"""Settings of many families; each reads those that it knows."""
RATES = {"compressed_sparse_attention": 4, "heavily_compressed_attention": 8}
OTHERS: dict[str, dict[str, Any]] = {
    "deepseek_v4": ALL | {"compress_rates": RATES},
    "inkling_text": ALL,
    **dict.fromkeys(
        (
            *("cohere2_moe", "dots1", "dots3_note_text", "ernie4_5_moe", "flint", "gemma"),
            *("gemma4_unified_text", "glm", "glm4_moe_lite", "gpt_neox_japanese", "granitemoe_swa"),
            *("hunyuan_v1_moe", "hy_v3", "hy_v4", "hyperclovax", "iquestcoder"),
        ),
        ALL,
    ),
}
OTHER_WRAPPERS = ("aya_vision", "cohere2_vision", "paligemma")
"""Types that see, with the settings of ``tests/families/wrappers.py``."""
