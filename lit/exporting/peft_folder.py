"""Write an adapter's folder for PEFT and other tools that read its format."""

import shutil
from pathlib import Path

from lit.exporting.probe import probe_logits, relative_difference
from lit.messages import tr
from lit.model.architecture import loader_of
from lit.model.peft_note import describe_misreading
from lit.model.tuned import base_of, load_tuned
from lit.run.card import write_plain_card
from lit.run.console import print_rank0
from lit.run.output import check_free, creating
from lora.config import ConfigError
from lora.injection import eject
from lora.storage.adapter import load_adapter, save_adapter
from lora.storage.metadata import read_quantization

MAX_DIFFERENCE = 1e-4
"""The largest relative difference of logits that rounding in float32 may cause."""


def write_peft(folder: Path, adapter: Path, base: str | None = None) -> tuple[float, str]:
    """Write any adapter that loads here in the form that most tools read.

    Args:
        folder: The folder to make, atomically; it must not exist, or be empty.
        adapter: The adapter's folder; it stays unchanged.
        base: The base model, if it is not where the adapter says.

    Returns:
        The relative difference of the written adapter's logits from the original's, and what a
        person must know before loading the folder in PEFT; empty for most models.

    Raises:
        ConfigError: The folder is not empty, the adapter does not fit its base, or the written
            adapter computes other logits.
    """
    check_free(folder)
    name, revision = base_of(adapter, base)
    print_rank0(tr("export loading the model …"))
    model, tokenizer = load_tuned(adapter, base)
    expected, note = probe_logits(model, tokenizer), describe_misreading(model)
    with creating(folder) as new:
        save_adapter(model, new, name, revision, read_quantization(adapter))
        tokenizer.save_pretrained(new)
        card = adapter / "README.md"
        if card.is_file():
            shutil.copyfile(card, new / card.name)
        else:
            write_plain_card(new, name, loader_of(model), note)
        print_rank0(tr("export reading the adapter back to compare …"))
        config = load_adapter(eject(model), new)
        difference = relative_difference(probe_logits(model.eval(), tokenizer), expected)
        if not difference < MAX_DIFFERENCE:
            raise ConfigError(
                tr(
                    "the exported adapter (r {r}) changes the logits by {difference:.1%}, more "
                    "than {max_difference:.2%}, so nothing was written",
                    r=config.r,
                    difference=difference,
                    max_difference=MAX_DIFFERENCE,
                )
            )
    return difference, f"{tr(note)} --adapter {adapter}" if note else ""
