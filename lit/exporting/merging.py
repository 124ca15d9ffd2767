"""Write a merged model as a folder, after checking that it computes what the adapter computes."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from lit.exporting.modelfile import modelfile
from lit.exporting.probe import probe_logits, relative_difference
from lit.model.tuned import load_tuned, stored_dtype
from lit.run.output import check_free, creating
from lora.config import ConfigError
from lora.injection import merge
from lora.storage.files import write_text

MAX_DIFFERENCE = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.25}
"""The largest relative difference of logits that rounding the weights to a dtype may cause.
bfloat16 has 8 significant bits; a small model with a strong adapter was seen to differ by 0.12."""


def merge_into(
    folder: Path,
    adapter: Path,
    base: str | None = None,
    dtype: torch.dtype | None = None,
    ollama: bool = False,
    quantize: str | None = None,
) -> float:
    """Write a merged model, after loading it again and comparing its logits.

    Args:
        folder: The folder to make, atomically; it must not exist, or be empty.
        adapter: The adapter's folder.
        base: The base model, if it is not where the adapter says.
        dtype: The dtype of the written weights; None for the base's own.
        ollama: Whether to write a Modelfile too.
        quantize: How the base was quantized in training; the adapter is merged into the dense
            base.

    Returns:
        The relative difference of the merged model's logits from the adapter's; with
        ``quantize``, from those of the adapter on the quantized base.

    Raises:
        ConfigError: The folder is not empty, the adapter does not fit its base, a merged weight
            is not finite, or the merged model computes other logits.
    """
    check_free(folder)
    stored = stored_dtype(adapter, base)
    dtype = dtype or stored
    # Load in the finer dtype of the two: the weights are rounded once, when written.
    model, tokenizer = load_tuned(adapter, base, torch.promote_types(stored, dtype))
    expected = probe_logits(model, tokenizer)
    merge(model)
    if broken := [name for name, p in model.named_parameters() if not p.isfinite().all()]:
        raise ConfigError(
            f"the merged weight {broken[0]} is not finite, so nothing was written: check the "
            "base's weights, or train with a lower model.lr"
        )
    model.to(dtype)  # type: ignore[arg-type]
    with creating(folder) as new:
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)
        if ollama:
            write_text(new / "Modelfile", modelfile(model, tokenizer))
        written = AutoModelForCausalLM.from_pretrained(
            new, dtype=dtype, trust_remote_code=False, local_files_only=True
        )
        logits = probe_logits(written, tokenizer)
        difference = relative_difference(logits, expected)
        if not difference < MAX_DIFFERENCE[dtype]:
            raise ConfigError(
                f"the merged model's logits differ from the adapter's by {difference:.1%}, more "
                f"than {MAX_DIFFERENCE[dtype]:.1%}, so nothing was written"
            )
        if quantize:
            trained, _ = load_tuned(adapter, base, quantize=quantize)
            difference = relative_difference(logits, probe_logits(trained, tokenizer))
        # Its files are mapped, and Windows moves no folder with a mapped file.
        del written
    return difference
