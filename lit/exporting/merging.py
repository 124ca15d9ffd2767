"""Write a merged model as a folder, after checking that it computes what the adapter computes."""

import json
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lit.answering.generation import stop_tokens
from lit.exporting.modelfile import modelfile
from lit.exporting.probe import probe_logits, relative_difference
from lit.exporting.processor_files import copy_processor
from lit.exporting.shards import find_checkpoint, not_finite, why_not, write_merged
from lit.messages import tr
from lit.model.architecture import model_class
from lit.model.quantization import stored_quantization
from lit.model.tuned import base_config, base_of, load_tuned, stored_dtype
from lit.run.console import print_rank0
from lit.run.output import check_free, creating
from lora.config import ConfigError
from lora.injection import merge
from lora.storage.files import write_text

MAX_DIFFERENCE = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.25}
"""The largest relative difference of logits that weights of a dtype may cause by rounding.
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
    name, revision = base_of(adapter, base)
    config = base_config(adapter, base)
    if kind := stored_quantization(config, name):
        raise ConfigError(
            tr(
                "{name} is stored in {kind}, and an adapter is merged into 16-bit weights: give "
                "the model that it was made from with --base",
                name=name,
                kind=kind,
            )
        )
    stored = stored_dtype(adapter, base)
    dtype = dtype or stored
    # In the dtype of its files, the base stays mapped and takes no memory of its own.
    print_rank0(tr("merge  loading the model …"))
    model, tokenizer = load_tuned(adapter, base, stored)
    # What a Modelfile cannot hold is found before the work.
    text = modelfile(model, tokenizer) if ollama else ""
    expected = probe_logits(model, tokenizer)
    checkpoint = find_checkpoint(name, revision)
    reason = why_not(model, checkpoint) if checkpoint else tr("the base has no safetensors files")
    with creating(folder) as new:
        print_rank0(tr("merge  writing the merged weights …"))
        if checkpoint and not reason:
            write_merged(model, checkpoint, new, dtype)
        else:
            print_rank0(
                tr(
                    "merge  the whole model at once, which takes more memory: {reason}",
                    reason=reason,
                )
            )
            del model
            write_whole(adapter, base, new, stored, dtype)
        tokenizer.save_pretrained(new)
        if config.get_text_config(decoder=True) is not config:
            copy_processor(name, revision, new)
        print_rank0(tr("merge  loading them again to compare …"))
        written = model_class(config, name).from_pretrained(
            new, dtype=dtype, trust_remote_code=False, local_files_only=True
        )
        write_stops(new, written, tokenizer)
        if ollama:
            write_text(new / "Modelfile", text)
        logits = probe_logits(written, tokenizer)
        difference = relative_difference(logits, expected)
        allowed = max(MAX_DIFFERENCE[dtype], MAX_DIFFERENCE[stored])
        if not difference < allowed:
            raise ConfigError(
                tr(
                    "the merged model's logits differ from the adapter's by {difference:.1%}, "
                    "more than {allowed:.1%}, so nothing was written",
                    difference=difference,
                    allowed=allowed,
                )
            )
        if quantize:
            trained, _ = load_tuned(adapter, base, quantize=quantize)
            difference = relative_difference(logits, probe_logits(trained, tokenizer))
        # Its files are mapped, and Windows moves no folder with a mapped file.
        del written
    return difference


def write_stops(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write the tokens that end an answer into a model's folder, where every tool reads them.

    A base may name only the end of a text, and its chat template another end of a turn.
    """
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name in ("bos_token_id", "pad_token_id"):
        if (value := getattr(model.generation_config, name)) is not None:
            settings.setdefault(name, value)
    if stops := stop_tokens(model, tokenizer):
        settings["eos_token_id"] = stops if len(stops) > 1 else stops[0]
    write_text(path, json.dumps(settings, indent=2) + "\n")


def write_whole(
    adapter: Path, base: str | None, folder: Path, stored: torch.dtype, dtype: torch.dtype
) -> None:
    """Merge a model in memory and write it, as transformers writes models."""
    # Load in the finer dtype of the two: the weights are rounded once, when written.
    model, _ = load_tuned(adapter, base, torch.promote_types(stored, dtype))
    merge(model)
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise ConfigError(not_finite(name))
    model.to(dtype)  # type: ignore[arg-type]
    model.save_pretrained(folder)
