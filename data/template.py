"""A conversation becomes tokens and labels: the one place where labels are masked."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import TemplateError, TemplateSyntaxError
from transformers import PreTrainedTokenizerBase

from data.types import IGNORE, DataError, Example, Message, RowError, TooLongError

TRUNCATIONS = ("middle", "drop", "error")
MIN_PROMPT = 16
"""Tokens of a cut prompt that must remain; with fewer, the row is left out."""


def choose(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """Give the tokenizer its template, which later goes into the adapter's folder.

    Args:
        tokenizer: Changed in place.
        template: ``chat``, the model's own; ``plain``, each text followed by the end token;
            ``auto``, chat where the model has one and plain elsewhere; or a Jinja file.

    Returns:
        What was taken: ``chat``, ``plain`` or the file's name.

    Raises:
        DataError: There is no such template, or plain is asked and no end token exists.
    """
    if template == "auto":
        template = "chat" if tokenizer.chat_template else "plain"
    if template == "chat":
        if not tokenizer.chat_template:
            raise DataError("data.template is chat, but this model has none: use plain, or a file")
    elif template == "plain":
        if tokenizer.eos_token is None:
            raise DataError("data.template is plain, but this model has no end token: use a file")
        tokenizer.chat_template = _plain(tokenizer)
    elif Path(template).is_file():
        try:
            tokenizer.chat_template = Path(template).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise DataError(f"{template} is not UTF-8; save it as UTF-8") from None
    else:
        raise DataError(f"data.template is {template!r}: neither auto, chat, plain nor a file")
    stop_token(tokenizer)  # a template that cannot be used is refused before any row is read
    return template


def prompt(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens after which the model is to answer, the same in training and in chat."""
    return _render(messages, tokenizer, add_generation_prompt=True)


def continuation(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens of a bare text, for a model that is to go on with it."""
    return tokenizer(text)["input_ids"]


def stop_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends an answer in the tokenizer's template."""
    conversation = [Message("user", "?"), Message("assistant", "!")]
    return encode(conversation, tokenizer, max_length=None).ids[-1]


def encode(
    messages: Sequence[Message],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None = None,
    truncation: str = "middle",
) -> Example:
    """Tokenise a conversation, with labels on the answers that train and on their stop tokens.

    Args:
        messages: Turns from the first to the last answer.
        tokenizer: With its template.
        max_length: Tokens a row may have; None for any number.
        truncation: What to do with a longer one: ``middle`` takes tokens out of the middle of what
            stands before the first answer, ``drop`` leaves the row out, ``error`` stops.

    Raises:
        RowError: The row cannot be used, or does not fit.
        DataError: The template does not end an answer, or a row does not fit and truncation is
            ``error``.
    """
    ids = _render(messages, tokenizer)
    labels = [IGNORE] * len(ids)
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    end = len(ids)
    for place, message in enumerate(messages):
        if message.role != "assistant" or not message.train:
            continue
        before = _render(messages[:place], tokenizer, add_generation_prompt=True)
        start = len(before)
        if ids[:start] != before:
            raise RowError(
                f"turn {place + 1}: the template writes what comes before this answer otherwise "
                "once the answer is there, so chat would not show the model what it learned from"
            )
        # Control tokens in the texts stay text, so the first one is the template's end of the turn.
        # pad and eos are one token in many tokenizers: mask by place, or it never learns to stop.
        last = place + 1 == len(messages)
        turn = len(ids) if last else len(_render(messages[: place + 1], tokenizer))
        stop = next((i for i in range(start, turn) if ids[i] in special), None)
        if stop is None:
            raise DataError(
                "this template ends an answer without a special token, so the model would never "
                "learn to stop: use data.template plain, or a file"
            )
        end = stop + 1
        labels[start:end] = ids[start:end]
    return _fit(Example(ids[:end], labels[:end]), max_length, truncation)


def _fit(example: Example, max_length: int | None, truncation: str) -> Example:
    ids, labels, _ = example
    if max_length is None or len(ids) <= max_length:
        return example
    too_long = f"{len(ids)} tokens, data.max_length is {max_length}"
    if truncation == "error":
        raise DataError(f"{too_long}, and data.truncation is error")
    if truncation == "drop":
        raise TooLongError(f"too long: {too_long}")
    first = next(i for i, label in enumerate(labels) if label != IGNORE)
    cut = len(ids) - max_length
    keep = first - cut
    if keep < MIN_PROMPT:
        raise TooLongError(
            f"too long: {too_long}, and too little of it is prompt that could be cut"
        )
    # The template's header leads and the question's end comes last: both stay.
    head = keep // 2
    tail = head + cut
    return Example(ids[:head] + ids[tail:], labels[:head] + labels[tail:], cut)


def _render(
    messages: Sequence[Message],
    tokenizer: PreTrainedTokenizerBase,
    add_generation_prompt: bool = False,
) -> list[int]:
    turns = [{"role": message.role, "content": message.content} for message in messages]
    try:
        return tokenizer.apply_chat_template(  # type: ignore[return-value]
            turns,
            add_generation_prompt=add_generation_prompt,
            return_dict=False,
            sanitize_control_tokens=True,
        )
    except TemplateSyntaxError as error:
        raise DataError(f"the template is broken in its line {error.lineno}: {error}") from None
    except TemplateError as error:
        # Some templates refuse a system message, or roles out of their order.
        raise RowError(f"the template refuses this conversation: {error}") from None


def _plain(tokenizer: PreTrainedTokenizerBase) -> str:
    first = tokenizer("a")["input_ids"][0]
    start = "{{ bos_token }}" if first == tokenizer.bos_token_id else ""
    return start + "{% for message in messages %}{{ message['content'] + eos_token }}{% endfor %}"
