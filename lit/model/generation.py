"""Answers: one streamed, or many in batches."""

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
    """How the next token is drawn.

    Args:
        seed: Set anew for each answer, so that the same question gives the same answer.
        temperature: 0 takes the likeliest token each time.
        top_p: Draw among the likeliest tokens that together have this probability.
        max_new_tokens: Tokens of an answer, at most.
    """

    seed: int = 42
    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 256

    def __post_init__(self) -> None:
        for name, value, right in (
            ("temperature", self.temperature, self.temperature >= 0),
            ("top_p", self.top_p, 0 < self.top_p <= 1),
            ("max_new_tokens", self.max_new_tokens, self.max_new_tokens >= 1),
        ):
            if not right:
                raise ConfigError(f"--{name} is {value}, which is out of range")


class Answer(NamedTuple):
    """What a model wrote."""

    text: str
    tokens: int
    stopped: bool
    """Whether it ended by itself, with a stop token."""


class _Writer(TextStreamer):
    """Hands on text as soon as it is whole characters."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, write: Callable[[str], None]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.write = write

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Called by the base class with each new piece."""
        self.write(text)


@contextmanager
def use_model(model: PreTrainedModel, which: str) -> Iterator[None]:
    """Let ``base`` or ``tuned`` speak for the length of a ``with`` block."""
    with adapters_disabled(model) if which == "base" else nullcontext():
        yield


def stop_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token that ends an answer: the model's own, and the template's."""
    own = model.generation_config.eos_token_id
    known = own if isinstance(own, list) else [own]
    templated = [stop_token(tokenizer)] if tokenizer.chat_template else []
    return sorted({i for i in [*known, tokenizer.eos_token_id, *templated] if i is not None})


def stream(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[int],
    sampling: Sampling,
    write: Callable[[str], None],
) -> Answer:
    """Answer one prompt, handing text on while it is made.

    Args:
        model: In eval mode.
        tokenizer: Its tokenizer, with the template.
        prompt: Tokens.
        sampling: How tokens are drawn.
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
        prompts: Tokens.
        sampling: How tokens are drawn.
        batch_size: Prompts of a batch.
        synced: Go on until every rank has ended, where the model is sharded among them.

    Yields:
        (place in prompts, answer), in the order they are made.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for first in range(0, len(order), batch_size):
        places = order[first : first + batch_size]
        made = _generate(model, tokenizer, [prompts[i] for i in places], sampling, synced=synced)
        yield from zip(places, made, strict=True)


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
    # Padding stands on the left, so that every answer begins at the same place.
    ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    sampled = sampling.temperature > 0
    # Made from nothing, so that one set of flags means the same for every model.
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
    end = next((place for place, i in enumerate(ids) if i in stops), None)
    text = str(tokenizer.decode(ids[:end], skip_special_tokens=True))
    return Answer(text.strip(), len(ids) if end is None else end + 1, end is not None)
