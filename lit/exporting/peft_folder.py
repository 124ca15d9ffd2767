"""An adapter's folder for PEFT and what reads its format, proved before it is there."""

import shutil
from pathlib import Path

from lit.exporting.probe import distance, probe
from lit.model.tuned import base_of, load_tuned
from lit.run.card import write_plain_card
from lit.run.output import appearing, check_free
from lora.adapter import load_adapter, save_adapter
from lora.config import ConfigError
from lora.inject import eject

MAX_MOVED = 1e-4
"""How far rounding in float32 may move logits, as a share of their size."""


def write_peft(folder: Path, adapter: Path, base: str | None = None) -> float:
    """Write any adapter that loads here in the form that most tools read.

    Args:
        folder: Must not exist, or be empty; it appears whole or not at all.
        adapter: The adapter's folder; left as it is.
        base: The base model, if it is not where the adapter says.

    Returns:
        How far the logits moved from the adapter's, as a share of their size.

    Raises:
        ConfigError: The folder is taken, the adapter does not fit, or what was written says
            something else.
    """
    check_free(folder)
    name, revision = base_of(adapter, base)
    model, tokenizer = load_tuned(adapter, base)
    wanted = probe(model, tokenizer)
    with appearing(folder) as new:
        save_adapter(model, new, name, revision)
        tokenizer.save_pretrained(new)
        card = adapter / "README.md"
        if card.is_file():
            shutil.copyfile(card, new / card.name)
        else:
            write_plain_card(new, name)
        config = load_adapter(eject(model), new)
        moved = distance(probe(model.eval(), tokenizer), wanted)
        if not moved < MAX_MOVED:
            raise ConfigError(
                f"the exported adapter (r {config.r}) moves the logits by {moved:.1%}; "
                "nothing was written"
            )
    return moved
