"""TRL's SFTTrainer: python -m benchmarks.peers.contender_trl STEPS

It gets a PEFT config and tokenized rows with labels, and pads them with its own collator.
"""

import argparse
import tempfile
from pathlib import Path

import peft
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from benchmarks.peers import rows
from benchmarks.peers.hf_steps import Gated, StepCollator, as_dataset
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
                # By default TRL checkpoints activations, and computes in bfloat16.
                gradient_checkpointing=False,
                bf16=False,
                dataset_kwargs={"skip_prepare_dataset": True},
            ),
            train_dataset=as_dataset(steps),
            processing_class=AutoTokenizer.from_pretrained(settings["model"]),
            peft_config=peft.LoraConfig(**lora_settings(options.dropout)),
        )
        # An item is a whole step, because steps differ in their number of rows.
        collator = StepCollator(trainer.data_collator)
        trainer.data_collator = collator
        trainer.add_callback(Gated(collator))
        trainer.train()


if __name__ == "__main__":
    main()
