"""Training on a simulated MPS device: what a Mac refuses is not asked of it.

The simulation refuses nothing by itself: it lists what ran. Which operations have a kernel is told
by the table that torch was generated from. Attention is computed by torch's plain formula.
"""

import pytest
from device_results import counted, simulate

DROPOUT = {"lora_dropout": 0.1, "neftune_alpha": 5}
ROWS: dict[str, dict] = {
    "dropout and noise": {"precision": "32-true", "lora": DROPOUT},
    "dora, gemma2": {"precision": "bf16-mixed", "variant": "dora", "family": "gemma2"},
    "pissa, float16": {"precision": "16-mixed", "variant": "pissa", "family": "qwen2"},
    "full embedding": {
        "precision": "bf16-true",
        "lora": DROPOUT | {"modules_to_save": ["embed_tokens"]},
        "module": {"gradient_checkpointing": True},
    },
}
REFUSED = ("float64", "random numbers of 64 bits", "generator")
over_rows = pytest.mark.parametrize("row", ROWS)


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> dict:
    """What was counted in each row."""
    return simulate("mps", ROWS, request.config)


@over_rows
def test_a_mac_is_asked_for_nothing_that_it_refuses(row, results):
    result = results[row]
    assert "error" not in result, result["error"]
    assert result["steps"] == 2
    phases = ("made", "start", "step 1", "trial", "step 2", "validation", "end")
    refused = {phase: counted(result, phase, *REFUSED) for phase in phases}
    assert not any(refused.values()), refused
    assert not result["no MPS kernel"]
