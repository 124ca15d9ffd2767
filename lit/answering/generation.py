"""Answers of a model: one streamed, or many in batches."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain, islice
from typing import NamedTuple

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase, TextStreamer

from data.formats.values import tidy
from data.template import stop_token
from lit.answering.batching import can_batch, pad_left, split_batches, without_defaults
from lit.answering.context import check_context
from lit.answering.filling import can_fill, fill
from lit.answering.sampling import NotFiniteError, Sampling, choosing, seeded_generator
from lit.messages import tr
from lit.model.loading import summary
from lora.config import ConfigError
from lora.injection import adapters_disabled


class Answer(NamedTuple):
    """The answer of a model."""

    text: str
    tokens: int
    stopped: bool
    """Whether it ended with a stop token."""


FAILURES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError)
"""What the code of a family raises where it fails to generate."""


class GenerationError(ConfigError):
    """transformers does not generate with a model; it may train all the same."""


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


def pad_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that fills up shorter prompts of a batch."""
    if tokenizer.pad_token_id is not None:
        return tokenizer.pad_token_id
    return stop_tokens(model, tokenizer)[0]


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

    Raises:
        ConfigError: The prompt and the answer do not fit into the model's context.
        GenerationError: The code of the family fails.
        NotFiniteError: The model computes NaN.
    """
    return _generate(model, tokenizer, [prompt], sampling, _Writer(tokenizer, write))[0]


def answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Iterable[Sequence[int]],
    sampling: Sampling,
    batch_size: int = 8,
    synced: bool = False,
) -> Iterator[tuple[int, Answer]]:
    """Answer prompts in a batch, or one by one where a batch changes answers.

    Where it changes no answer, a prompt takes the place of an answer as soon as that one ends.

    Args:
        model: In eval mode.
        tokenizer: Its tokenizer, with the template.
        prompts: Their tokens. No more are taken than can begin.
        sampling: How tokens are chosen.
        batch_size: Prompts in a batch.
        synced: Generate until every rank is done, where the model is sharded among ranks.

    Yields:
        (index in prompts, answer), in the order of generation.

    Raises:
        ConfigError: A prompt and its answer do not fit into the model's context.
        GenerationError: The code of the family fails.
        NotFiniteError: The model computes NaN.
    """
    stops, pad = stop_tokens(model, tokenizer), pad_token(model, tokenizer)
    batch_size = batch_size if can_batch(sampling) else 1
    waiting = enumerate(prompts)
    while group := list(islice(waiting, batch_size)):
        if len(group) > 1 and not synced and can_fill(model, pad):
            every = chain(group, waiting)
            with _told(model):
                for index, tokens in fill(model, every, sampling, stops, pad, batch_size):
                    yield index, _answer(tokens, stops, tokenizer)
            return
        lengths = [len(prompt) for _, prompt in group]
        for rows in split_batches(model, lengths, batch_size, sampling.max_new_tokens, pad):
            indices, batch = zip(*(group[row] for row in rows), strict=True)
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
    check_context(model, prompts, sampling.max_new_tokens)
    stops, pad = stop_tokens(model, tokenizer), pad_token(model, tokenizer)
    ids, mask = pad_left(prompts, pad, model.device)
    generators = [seeded_generator(sampling, prompt, model.device) for prompt in prompts]
    with _told(model):
        output = without_defaults(model).generate(  # type: ignore[operator]
            ids,
            attention_mask=mask,
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=sampling.max_new_tokens,
                eos_token_id=stops,
                pad_token_id=pad,
            ),
            logits_processor=choosing(sampling, generators),
            streamer=streamer,
            synced_gpus=synced,
        )
    return [_answer(row[ids.shape[1] :].tolist(), stops, tokenizer) for row in output]


@contextmanager
def _told(model: PreTrainedModel) -> Iterator[None]:
    """Say what it means where the code of a family fails to generate."""
    try:
        yield
    except (ConfigError, NotFiniteError, torch.AcceleratorError, torch.OutOfMemoryError):
        raise
    except FAILURES as error:
        if "memory" in str(error):  # the CPU's has no class of its own
            raise
        raise GenerationError(
            tr(
                "transformers does not generate with {type} ({summary}), so there are no "
                "answers; training and merging do not need them",
                type=type(model).__name__,
                summary=summary(error),
            )
        ) from error


def _answer(ids: list[int], stops: list[int], tokenizer: PreTrainedTokenizerBase) -> Answer:
    end = next((position for position, token in enumerate(ids) if token in stops), None)
    text = str(tokenizer.decode(ids[:end], skip_special_tokens=True))
    return Answer(tidy(text), len(ids) if end is None else end + 1, end is not None)
