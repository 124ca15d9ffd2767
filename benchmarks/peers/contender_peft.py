"""PEFT with Hugging Face's Trainer: python -m benchmarks.peers.contender_peft STEPS

As in PEFT's guide: ``get_peft_model``, a plain Trainer, rows padded to the longest of a batch.
"""

import argparse
import tempfile
from pathlib import Path

import peft
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)

from benchmarks.peers import rows
from benchmarks.peers.hf_steps import Gated, StepCollator, as_dataset
from benchmarks.peers.settings import lora_settings, trainer_arguments


def load_model(base: str, dropout: float, adapter: Path | None) -> peft.PeftModel:
    """Return the model with a new adapter, or with a saved one."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter:
        config = peft.LoraConfig.from_pretrained(adapter)
        config.lora_dropout = dropout
        return peft.PeftModel.from_pretrained(model, adapter, is_trainable=True, config=config)
    return peft.get_peft_model(model, peft.LoraConfig(**lora_settings(dropout)))


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser()
    parser.add_argument("steps", type=Path)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--validate", type=Path)
    options = parser.parse_args()
    steps, settings = rows.read(options.steps)
    tokenizer = AutoTokenizer.from_pretrained(settings["model"])
    collator = StepCollator(DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100))
    held_out = rows.read(options.validate)[0] if options.validate else None
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=load_model(settings["model"], options.dropout, options.adapter),
            args=TrainingArguments(
                **trainer_arguments(folder),
                per_device_eval_batch_size=1,
                eval_strategy="epoch" if held_out else "no",
            ),
            data_collator=collator,
            train_dataset=as_dataset(steps),
            eval_dataset=as_dataset(held_out) if held_out else None,
            callbacks=[Gated(collator)],
        )
        trainer.train()


if __name__ == "__main__":
    main()
