"""The model card of an adapter: its losses, its settings, and how to use it."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from data.text import clean, escape_markdown, replace_surrogates
from lit.messages import tr
from lit.run.console import print_rank0
from lit.run.metrics_file import perplexity
from lora.storage.files import write_text

CAUSAL = "AutoModelForCausalLM"
CARD = """\
---
{card_data}
---

# LoRA adapter for {title}

Trained with lit-lora on {rows} rows of {data}; {val_rows} rows were held out.

| | validation loss | perplexity |
|---|---|---|
| {start} | {base_loss:.4f} | {base_perplexity:.2f} |
| with this adapter | {loss:.4f} | {perplexity:.2f} |

## Settings

r {r}, lora_alpha {lora_alpha}, lora_dropout {lora_dropout}, layers: {targets}.
{origin}The best adapter of the run, at optimizer step {step}. Prompts follow {template}.
"""
CARD_WITHOUT_RUN = """\
---
{card_data}
---

# LoRA adapter for {title}

Written by lit-lora from an adapter without a model card.
"""
USE = """
## Use

```python
from peft import PeftModel
from transformers import {loader}, AutoTokenizer

model = {loader}.from_pretrained({base})
model = PeftModel.from_pretrained(model, "path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
```
"""
COMPARISON = "\n## Comparison with the base\n\n"
SIGNATURE = "\n<!-- written by lit-lora; SHA-256 of the text above: {digest} -->\n"
"""The end of a card; it tells whether a person has changed the card."""


def write_card(
    folder: Path,
    base: str,
    *,
    base_loss: float,
    loss: float,
    data: str,
    rows: int,
    val_rows: int,
    r: int,
    lora_alpha: float,
    lora_dropout: float,
    targets: str,
    step: int,
    loader: str = CAUSAL,
    values: str = "",
    adapter: str | None = None,
    note: str = "",
    language: str = "",
    datasets: Sequence[str] = (),
) -> None:
    """Write README.md into an adapter's folder; one that a person wrote or changed stays.

    Args:
        folder: The adapter's folder.
        base: The base model's name.
        base_loss: Validation loss before training, of the base model or of ``adapter``; NaN without
            validation.
        loss: Validation loss with the adapter.
        data: The name of the data.
        rows: Number of rows that trained.
        val_rows: Number of rows held out.
        r: The rank.
        lora_alpha: As in ``LoRAConfig``.
        lora_dropout: As in ``LoRAConfig``.
        targets: The last names of the adapted layers.
        step: The optimizer step after which the adapter was saved.
        loader: The class of transformers that loads the base.
        values: Values of the template's variables as a person types them; empty for none.
        adapter: The folder of the adapter that training went on from, or None.
        note: Why PEFT cannot load the adapter, and the command to use instead; empty if it can.
        language: The code of the data's language; empty if it is not known.
        datasets: The hub's names of the data.
    """
    origin = f"Training went on from the adapter {escape_markdown(adapter)}.\n" if adapter else ""
    text = (CARD + _use(note)).format(
        card_data=_card_data(base, language, datasets),
        base=_python(base),
        loader=loader,
        title=escape_markdown(base),
        start="before this training" if adapter else "base",
        origin=origin,
        base_loss=base_loss,
        base_perplexity=perplexity(base_loss),
        loss=loss,
        perplexity=perplexity(loss),
        data=escape_markdown(data),
        rows=rows,
        val_rows=val_rows,
        r=r,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        targets=escape_markdown(targets),
        step=step,
        template="`chat_template.jinja`" + (f" with {escape_markdown(values)}" if values else ""),
    )
    _write(folder / "README.md", text)


def write_plain_card(folder: Path, base: str, loader: str = CAUSAL, note: str = "") -> None:
    """Write README.md into the folder of an adapter whose training is unknown.

    Args:
        folder: The adapter's folder.
        base: The base model's name.
        loader: The class of transformers that loads the base.
        note: As in ``write_card``.
    """
    text = (CARD_WITHOUT_RUN + _use(note)).format(
        card_data=_card_data(base), base=_python(base), loader=loader, title=escape_markdown(base)
    )
    _write(folder / "README.md", text)


def _use(note: str) -> str:
    return f"\n## Use\n\n{note} --adapter path/to/this/folder\n" if note else USE


def _write(path: Path, card: str) -> None:
    if path.is_symlink() or (path.exists() and not _is_unchanged(path)):
        print_rank0(
            tr(
                "card   {path} stays: it was changed by hand, or not written by this version",
                path=path,
            )
        )
        return
    text = str(ModelCard(card))
    write_text(path, text + SIGNATURE.format(digest=_digest(text)))


def add_comparison(folder: Path, text: str) -> None:
    """Add what a comparison measured to the card of its adapter, in place of an earlier comparison.

    Args:
        folder: The adapter's folder. A card that a person wrote or changed stays as it is.
        text: Markdown.
    """
    path = folder / "README.md"
    card = None if path.is_symlink() or not path.is_file() else _written_text(path)
    if card is None:
        print_rank0(
            tr(
                "card   {path} stays without these figures: it is not as lit-lora wrote it",
                path=path,
            )
        )
        return
    card = card.partition(COMPARISON)[0].rstrip() + f"\n{COMPARISON}{text.strip()}\n"
    write_text(path, card + SIGNATURE.format(digest=_digest(card)))


def _is_unchanged(path: Path) -> bool:
    """Return whether a card is as it was written here."""
    return _written_text(path) is not None


def _written_text(path: Path) -> str | None:
    """Return the text of a card without its signature; None if it is not as it was written."""
    signature = re.escape(SIGNATURE).replace(re.escape("{digest}"), "([0-9a-f]{64})")
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        match = re.fullmatch(f"(.*){signature}", file.read(2**20), re.DOTALL)
    return match[1] if match is not None and match[2] == _digest(match[1]) else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _python(text: str) -> str:
    """Return a text as Python source of one line; ASCII, so that it looks like what it is."""
    return json.dumps(replace_surrogates(text))


def _card_data(base: str, language: str = "", datasets: Sequence[str] = ()) -> str:
    # The hub refuses a card whose base model is a local folder. The license of what a person trains
    # is not known here.
    return ModelCardData(
        base_model=None if Path(base).is_dir() else clean(base),
        library_name="peft",
        tags=["lora"],
        pipeline_tag="text-generation",
        language=language or None,
        datasets=[clean(name) for name in datasets] or None,
    ).to_yaml()
