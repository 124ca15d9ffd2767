"""The model card of an adapter: what it is, how it was made, how to use it."""

import math
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from lora.files import write_text

TEXT = """\
---
{card_data}
---

# LoRA adapter for {base}

Trained with lit-lora on {rows} rows of `{data}`; {val_rows} rows were held out.

| | validation loss | perplexity |
|---|---|---|
| base | {base_loss:.4f} | {base_perplexity:.2f} |
| with this adapter | {loss:.4f} | {perplexity:.2f} |

## Settings

r {r}, lora_alpha {lora_alpha}, lora_dropout {lora_dropout}, layers: {targets}.
Best of the run at optimizer step {step}. Answers follow `chat_template.jinja` in this folder.
"""
PLAIN = """\
---
{card_data}
---

# LoRA adapter for {base}

Written by lit-lora from an adapter that came without a model card.
"""
USE = """
## Use

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{base}")
model = PeftModel.from_pretrained(model, "path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
```
"""


def write_card(folder: Path, base: str, base_loss: float, loss: float, **facts: object) -> None:
    """Write README.md into an adapter's folder.

    Args:
        folder: The adapter's.
        base: The base model's name.
        base_loss: Validation loss without the adapter; NaN if there was no validation.
        loss: Validation loss with it.
        facts: What else the text names.
    """
    text = TEXT + USE
    losses = {"base_perplexity": math.exp(base_loss), "perplexity": math.exp(loss)}
    _write(folder, base, text, base_loss=base_loss, loss=loss, **losses, **facts)


def write_plain_card(folder: Path, base: str) -> None:
    """Write README.md into the folder of an adapter whose training is not known.

    Args:
        folder: The adapter's.
        base: The base model's name.
    """
    _write(folder, base, PLAIN + USE)


def _write(folder: Path, base: str, text: str, **facts: object) -> None:
    # A local folder is no model of the hub, and the hub refuses such a name in a card.
    hub = None if Path(base).is_dir() else base
    data = ModelCardData(base_model=hub, library_name="peft", tags=["lora"])
    card = ModelCard(text.format(card_data=data.to_yaml(), base=base, **facts))
    write_text(folder / "README.md", str(card))
