"""Training on a simulated CUDA device: Lightning's Trainer and our module, on fake tensors.

Tensors of different devices meeting raise by themselves. What a real device computes, and how fast,
is not simulated.
"""

import pytest
from device_results import counted, simulate

DROPOUT = {"lora_dropout": 0.1}
EMBEDDING = {"modules_to_save": ["embed_tokens"]}
CHECKPOINTING = {"gradient_checkpointing": True}
ROWS: dict[str, dict] = {
    "lora": {},
    "four layers": {"layers": 4},
    "two micro-batches": {"accumulate": 2},
    "dropout and noise": {"family": "qwen2", "lora": DROPOUT | {"neftune_alpha": 5}},
    "dora": {"variant": "dora", "lora": DROPOUT},
    "pissa on a T4": {"variant": "pissa", "precision": "16-mixed", "capability": [7, 5]},
    "full embedding in float32": {"lora": EMBEDDING, "precision": "32-true"},
    "gemma2": {"family": "gemma2", "precision": "bf16-mixed", "lora": DROPOUT},
    "checkpointing": {"module": CHECKPOINTING, "lora": DROPOUT},
    "8-bit AdamW": {"module": {"optimizer": "adamw_8bit"}},
    "paged AdamW": {"module": {"optimizer": "paged_adamw_8bit"}, "precision": "bf16-mixed"},
    "everything": {
        "variant": "dora",
        "precision": "16-mixed",
        "family": "gemma2",
        "layers": 4,
        "lora": DROPOUT | EMBEDDING | {"neftune_alpha": 5},
        "module": CHECKPOINTING,
        "accumulate": 2,
    },
}
WAITS = ("read", "blocking", "synchronize")
over_rows = pytest.mark.parametrize("row", ROWS)


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> dict:
    """What was counted in each row."""
    return simulate("cuda", ROWS, request.config)


@over_rows
def test_a_run_trains_validates_and_ends_on_the_device(row, results):
    result = results[row]
    assert "error" not in result, result["error"]
    assert result["steps"] == 2
    assert {"step 2", "trial", "validation", "end"} <= result["counts"].keys()


@over_rows
def test_a_step_makes_no_generator(row, results):
    for phase in ("step 2", "trial"):
        assert not counted(results[row], phase, "generator")
