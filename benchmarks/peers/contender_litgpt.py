"""LitGPT's finetune_lora: python -m benchmarks.peers.contender_litgpt STEPS --checkpoint FOLDER

Calls LitGPT's own ``setup`` with LoRA on every projection. Needs an environment of its own, because
it needs older versions of huggingface_hub and jsonargparse than transformers 5 and this project.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from litgpt.args import EvalArgs, TrainArgs
from litgpt.data import DataModule, get_sft_collate_fn
from litgpt.finetune.lora import setup
from torch.utils.data import DataLoader

from benchmarks.peers import rows
from benchmarks.peers.gate import Gate
from benchmarks.peers.rows import Step, digest_of
from benchmarks.peers.settings import LR, SEED


class Steps(DataModule):
    """Gives LitGPT the rows of each step, padded by its own collator, after waiting at the gate.

    Args:
        steps: The rows.
        gate: Waited at when a batch is fetched, which LitGPT does at the start of each step.
    """

    def __init__(self, steps: list[Step], gate: Gate) -> None:
        super().__init__()
        self.steps, self.gate = steps, gate
        self.collate = get_sft_collate_fn(pad_id=0)
        self.report: dict[str, Any] = {}
        self.training = False

    def train_dataloader(self) -> DataLoader:
        """Return one item a step."""
        return DataLoader(self._items(), batch_size=1, collate_fn=self._train)

    def val_dataloader(self) -> DataLoader:
        """Return one short row: LitGPT validates before the first step and after the last."""
        return DataLoader(self._items()[:1], batch_size=1, collate_fn=self._validate)

    def _items(self) -> list[dict[str, Any]]:
        # LitGPT reads the longest input_ids, to set the size of its rotary tables.
        return [{"input_ids": max(step.ids, key=len), "step": step} for step in self.steps]

    def _train(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        step = items[0]["step"]
        self.gate.step(**self.report)
        self.report, self.training = {"rows": digest_of(step)}, True
        return self._batch(step)

    def _validate(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        if self.training:
            self.gate.step(**self.report)
        row = items[0]["step"]
        return self._batch(Step([row.ids[0][:8]], [row.ids[0][:8]]))

    def _batch(self, step: Step) -> dict[str, Any]:
        return self.collate(
            [
                {
                    "input_ids": torch.tensor(ids),
                    "labels": torch.tensor(labels),
                    "token_counts": {"raw": len(ids), "raw_plus_prompt_template": len(ids)},
                }
                for ids, labels in zip(step.ids, step.labels, strict=True)
            ]
        )


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser()
    parser.add_argument("steps", type=Path)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--dropout", type=float, default=0.1)
    options = parser.parse_args()
    steps, _ = rows.read(options.steps)
    with tempfile.TemporaryDirectory() as folder:
        setup(
            checkpoint_dir=options.checkpoint,
            out_dir=Path(folder),
            precision="32-true",
            lora_r=8,
            lora_alpha=32,
            lora_dropout=options.dropout,
            lora_query=True,
            lora_key=True,
            lora_value=True,
            lora_projection=True,
            lora_mlp=True,
            data=Steps(steps, Gate.from_environment()),
            train=TrainArgs(
                save_interval=None,
                log_interval=1,
                global_batch_size=1,
                micro_batch_size=1,
                lr_warmup_steps=1,
                epochs=2,
                max_steps=len(steps),
            ),
            eval=EvalArgs(interval=10**6, max_new_tokens=1, max_iters=1, final_validation=True),
            optimizer={
                "class_path": "torch.optim.AdamW",
                "init_args": {"lr": LR, "weight_decay": 0.0},
            },
            seed=SEED,
        )


if __name__ == "__main__":
    main()
