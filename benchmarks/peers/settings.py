"""What all contenders have in common."""

from typing import Any

LR = 2e-4
SEED = 42
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def lora_settings(dropout: float) -> dict[str, Any]:
    """The adapter, in PEFT's names."""
    return {
        "r": 8,
        "lora_alpha": 32,
        "lora_dropout": dropout,
        "target_modules": list(PROJECTIONS),
        "task_type": "CAUSAL_LM",
    }


def fit_arguments(dropout: float) -> list[str]:
    """The same for lit.fit."""
    return [
        "--model.lora.r=8",
        "--model.lora.lora_alpha=32",
        f"--model.lora.lora_dropout={dropout}",
        f"--model.lora.target_modules=[{','.join(PROJECTIONS)}]",
        f"--model.lr={LR}",
        "--model.scheduler=constant",
        "--model.warmup=0",
        "--trainer.precision=32-true",
    ]
