"""The settings that all contenders share."""

from typing import Any

LR = 2e-4
SEED = 42
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def lora_settings(dropout: float) -> dict[str, Any]:
    """Return the adapter's settings in PEFT's names."""
    return {
        "r": 8,
        "lora_alpha": 32,
        "lora_dropout": dropout,
        "target_modules": list(PROJECTIONS),
        "task_type": "CAUSAL_LM",
    }


def trainer_arguments(folder: str) -> dict[str, Any]:
    """Return arguments for the trainers of transformers and TRL; an item is a whole step."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": 1,
        "train_sampling_strategy": "sequential",
        "num_train_epochs": 1,
        "learning_rate": LR,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": SEED,
    }


def fit_arguments(dropout: float) -> list[str]:
    """Return the same settings for lit.fit."""
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
