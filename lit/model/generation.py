"""Answers of a model: one streamed, or many in batches."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TextStreamer,
)

from data.template import stop_token
from lora.config import ConfigError
from lora.inject import adapters_disabled


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Args:
        seed: Set before each answer, so that the same question gives the same answer.
        temperature: 0 takes the most likely token each time.
        top_p: Draw from the most likely tokens that together have this probability.
        max_new_tokens: Tokens that an answer may have.

    Raises:
        ConfigError: A value is out of range.
    """

    seed: int = 42
    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 256

    def __post_init__(self) -> None:
        for name, value, valid, allowed in (
            ("seed", self.seed, 0 <= self.seed < 2**63, "from 0 to 2**63 - 1"),
            (
                "temperature",
                self.temperature,
                self.temperature == 0 or 1e-3 <= self.temperature < math.inf,
                "0, or 0.001 or more",
            ),
            ("top_p", self.top_p, 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("max_new_tokens", self.max_new_tokens, self.max_new_tokens >= 1, "1 or more"),
        ):
            if not valid:
                raise ConfigError(f"--{name} is {value}; it must be {allowed}")


class Answer(NamedTuple):
    """The answer of a model."""

    text: str
    tokens: int
    stopped: bool
    """Whether it ended with a stop token."""


class _Writer(TextStreamer):
    """Passes text on as soon as it consists of whole characters."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, write: Callable[[str], None]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.write = write

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Pass a new piece on; the base class calls this."""
        self.write(text)


@contextmanager
def use_model(model: PreTrainedModel, which: str) -> Iterator[None]:
    """Use the model as ``base`` (adapters disabled) or ``tuned`` in a ``with`` block."""
    with adapters_disabled(model) if which == "base" else nullcontext():
        yield


def stop_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return every token that ends an answer: those of the model and of its template."""
    eos = model.generation_config.eos_token_id
    tokens = [*eos] if isinstance(eos, list) else [eos]
    tokens.append(tokenizer.eos_token_id)
    if tokenizer.chat_template:
        tokens.append(stop_token(tokenizer))
    return sorted({token for token in tokens if token is not None})


def stream(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[int],
    sampling: Sampling,
    write: Callable[[str], None],
) -> Answer:
    """Answer one prompt, and pass text on while it is generated.

    Args:
        model: In eval mode.
        tokenizer: Its tokenizer, with the template.
        prompt: Its tokens.
        sampling: How tokens are chosen.
        write: Called with each piece of text; may raise to stop the answer.
    """
    return _generate(model, tokenizer, [prompt], sampling, _Writer(tokenizer, write))[0]


def answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    batch_size: int = 8,
    synced: bool = False,
) -> Iterator[tuple[int, Answer]]:
    """Answer prompts in batches of similar length.

    Args:
        model: In eval mode.
        tokenizer: Its tokenizer, with the template.
        prompts: Their tokens.
        sampling: How tokens are chosen.
        batch_size: Prompts in a batch.
        synced: Generate until every rank is done, where the model is sharded among ranks.

    Yields:
        (index in prompts, answer), in the order of generation.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for first in range(0, len(order), batch_size):
        indices = order[first : first + batch_size]
        batch = [prompts[i] for i in indices]
        generated = _generate(model, tokenizer, batch, sampling, synced=synced)
        yield from zip(indices, generated, strict=True)


@torch.inference_mode()
def _generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    streamer: TextStreamer | None = None,
    synced: bool = False,
) -> list[Answer]:
    stops = stop_tokens(model, tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stops[0]
    width = max(len(prompt) for prompt in prompts)
    # Padding is on the left, so that every answer starts at the same position.
    ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    sampled = sampling.temperature > 0
    # A new config, so that the same flags mean the same for every model.
    config = GenerationConfig(
        do_sample=sampled,
        temperature=sampling.temperature if sampled else None,
        top_p=sampling.top_p if sampled else None,
        top_k=0 if sampled else None,
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=stops,
        pad_token_id=pad,
    )
    torch.manual_seed(sampling.seed)
    output = model.generate(  # type: ignore[operator]
        ids.to(model.device),
        attention_mask=mask.to(model.device),
        generation_config=config,
        streamer=streamer,
        synced_gpus=synced,
    )
    return [_answer(row[width:].tolist(), stops, tokenizer) for row in output]


def _answer(ids: list[int], stops: list[int], tokenizer: PreTrainedTokenizerBase) -> Answer:
    end = next((position for position, token in enumerate(ids) if token in stops), None)
    text = str(tokenizer.decode(ids[:end], skip_special_tokens=True))
    return Answer(text.strip(), len(ids) if end is None else end + 1, end is not None)
