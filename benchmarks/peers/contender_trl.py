"""TRL's SFTTrainer: python -m benchmarks.peers.contender_trl STEPS

It is given its PEFT config and rows in tokens with their labels, and pads them by its own collator.
"""

import argparse
import tempfile
from pathlib import Path

import peft
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from benchmarks.peers import rows
from benchmarks.peers.hf_steps import Gated, WholeSteps, as_dataset
from benchmarks.peers.settings import lora_settings, trainer_arguments


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser()
    parser.add_argument("steps", type=Path)
    parser.add_argument("--dropout", type=float, default=0.1)
    options = parser.parse_args()
    steps, settings = rows.read(options.steps)
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(settings["model"], dtype=torch.float32),
            args=SFTConfig(
                **trainer_arguments(folder),
                # Its default computes activations twice, and in bfloat16.
                gradient_checkpointing=False,
                bf16=False,
                dataset_kwargs={"skip_prepare_dataset": True},
            ),
            train_dataset=as_dataset(steps),
            processing_class=AutoTokenizer.from_pretrained(settings["model"]),
            peft_config=peft.LoraConfig(**lora_settings(options.dropout)),
        )
        # A step may have any number of rows: an item is a step, and its rows are collated as usual.
        batches = WholeSteps(trainer.data_collator)
        trainer.data_collator = batches
        trainer.add_callback(Gated(batches))
        trainer.train()


if __name__ == "__main__":
    main()
