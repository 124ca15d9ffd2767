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
    "four layers": {"layers": 4},
    "dropout and noise": {"family": "qwen2", "lora": DROPOUT | {"neftune_alpha": 5}},
    "two micro-batches": {"variant": "dora", "lora": DROPOUT, "accumulate": 2},
    "pissa on a T4": {"variant": "pissa", "precision": "16-mixed", "capability": [7, 5]},
    "full embedding in float32": {"lora": EMBEDDING, "precision": "32-true"},
    "gemma2": {"family": "gemma2", "precision": "bf16-mixed", "lora": DROPOUT},
    "checkpointing": {"module": CHECKPOINTING, "lora": DROPOUT},
    "8-bit AdamW": {"module": {"optimizer": "adamw_8bit"}, "precision": "bf16-mixed"},
    "torch for Windows": {"flash": False},
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
"""What waits for the device: reading a number of it, and copies that are not asynchronous."""
LIBRARIES = {
    "read @ torch/amp/grad_scaler.py:<genexpr>",  # whether the scaler skips the step
    "synchronize @ bitsandbytes/utils.py:sync_gpu",  # after each tensor that is updated
}
"""Waits of libraries that a step cannot avoid."""
MOST_WAITS = {"step 1": 2, "step 2": 1, "trial": 6, "validation": 1, "end": 1}
"""Of our code in each phase, whatever the number of layers, micro-batches and batches.

The trial's batch does not come from a loader: its six tensors are copied from pageable memory.
"""
KERNELS = {
    "four layers": "_varlen_attn",
    "checkpointing": "_varlen_attn",
    "pissa on a T4": "_efficient_attention",
    "torch for Windows": "_efficient_attention",
    "full embedding in float32": "_efficient_attention",
}
"""The kernel that computes the rows of a batch at once; gemma2 caps its scores and has none."""
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
    assert MOST_WAITS.keys() <= result["counts"].keys()


@over_rows
@pytest.mark.parametrize("phase", MOST_WAITS)
def test_waits_for_the_device_do_not_grow_with_layers_and_batches(row, phase, results):
    waits = counted(results[row], phase, *WAITS)
    ours = {key: count for key, count in waits.items() if key not in LIBRARIES}
    assert sum(ours.values()) <= MOST_WAITS[phase], ours


@pytest.mark.parametrize("row", KERNELS)
def test_rows_are_attended_to_by_one_kernel_forward_and_back(row, results):
    found = {name.partition("::")[2] for name in results[row]["attention"]}
    assert all(name.startswith(KERNELS[row]) for name in found)
    assert any("backward" in name for name in found)


@over_rows
def test_a_batch_is_copied_from_pinned_memory_without_waiting(row, results):
    for phase in ("start", "step 1", "step 2", "validation"):
        copies = counted(results[row], phase, "copy to")
        batch = [key for key in copies if "@ data/" in key]
        assert all(key.startswith("copy to @") for key in batch), batch
    assert counted(results[row], "start", "copy to")


@over_rows
def test_nothing_of_ours_is_float64_on_the_device(row, results):
    for phase in results[row]["counts"]:
        wide = counted(results[row], phase, "float64")
        assert not [key for key in wide if key.split(" @ ")[1].startswith(("lit/", "lora/"))]


@over_rows
def test_a_step_makes_no_generator(row, results):
    for phase in ("step 2", "trial"):
        assert not counted(results[row], phase, "generator")
