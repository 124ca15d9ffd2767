"""A merged model as a folder, proved before it is there."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from data.template import continuation_ids
from lit.exporting.probe import distance, probe
from lit.model.generation import stop_tokens
from lit.model.tuned import load_tuned, stored_dtype
from lit.run.output import appearing, check_free
from lora.config import ConfigError
from lora.inject import merge

MAX_MOVED = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.25}
"""How far rounding weights to a dtype may move logits, as a share of their size; bfloat16 keeps 8
bits of each, and a small model with a strong adapter was seen to move by 0.12."""


def merge_into(
    folder: Path,
    adapter: Path,
    base: str | None = None,
    dtype: torch.dtype | None = None,
    ollama: bool = False,
    quantize: str | None = None,
) -> float:
    """Write a merged model, after loading it again to see that it says what the adapter says.

    Args:
        folder: Must not exist, or be empty; it appears whole or not at all.
        adapter: The adapter's folder.
        base: The base model, if it is not where the adapter says.
        dtype: Of the weights written; None for the base's own.
        ollama: Write a Modelfile beside the weights.
        quantize: How the base was held in training; it is merged into its dense original.

    Returns:
        How far the logits moved from the adapter's, as a share of their size; with ``quantize``,
        from those over the quantized base.

    Raises:
        ConfigError: The folder is taken, the adapter does not fit, a merged weight is not finite,
            or the merged model says something else.
    """
    check_free(folder)
    stored = stored_dtype(adapter, base)
    dtype = dtype or stored
    # The sum is made in float32 and rounded once, to whichever of the two is finer.
    model, tokenizer = load_tuned(adapter, base, torch.promote_types(stored, dtype))
    wanted = probe(model, tokenizer)
    merge(model)
    if broken := [name for name, p in model.named_parameters() if not p.isfinite().all()]:
        raise ConfigError(f"the merged {broken[0]} is not finite; nothing was written")
    model.to(dtype)  # type: ignore[arg-type]
    with appearing(folder) as new:
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)
        if ollama:
            (new / "Modelfile").write_text(modelfile(model, tokenizer), encoding="utf-8")
        again = AutoModelForCausalLM.from_pretrained(
            new, dtype=dtype, trust_remote_code=False, local_files_only=True
        )
        moved = distance(probe(again, tokenizer), wanted)
        if not moved < MAX_MOVED[dtype]:
            raise ConfigError(
                f"the merged model's logits differ from the adapter's by {moved:.1%}; "
                "nothing was written"
            )
        if quantize:
            trained, _ = load_tuned(adapter, base, quantize=quantize)
            moved = distance(probe(again, tokenizer), probe(trained, tokenizer))
    return moved


def modelfile(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """An Ollama Modelfile with the template and the stop tokens of training."""
    lines = ["FROM ."]
    if tokenizer.chat_template:
        asked = {"role": "user", "content": "{{ .Prompt }}"}
        told = {"role": "system", "content": "{{ .System }}"}
        alone, with_system = (_rendered(turns, tokenizer) for turns in ([asked], [told, asked]))
        lines.append(
            f'TEMPLATE """{{{{ if .System }}}}{with_system}{{{{ else }}}}{alone}{{{{ end }}}}"""'
        )
    for token in stop_tokens(model, tokenizer):
        lines.append(f'PARAMETER stop "{tokenizer.convert_ids_to_tokens(token)}"')
    return "\n".join(lines) + "\n"


def _rendered(turns: list[dict[str, str]], tokenizer: PreTrainedTokenizerBase) -> str:
    text = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    # Ollama puts the first token there by itself.
    return text.removeprefix(tokenizer.bos_token or "") if _adds_bos(tokenizer) else text


def _adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    return continuation_ids("a", tokenizer)[0] == tokenizer.bos_token_id
