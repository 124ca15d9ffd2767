"""The template by which a conversation becomes text, in training and in chat."""

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from data.encoder import Encoder
from data.types import DataError, Example, Message, RowError

PLAIN = "{% for message in messages %}{{ message['content'] + eos_token }}{% endfor %}"
SAMPLE = (Message("user", "?"), Message("assistant", "!"))


def choose_template(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
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
        tokenizer.chat_template = PLAIN
    elif Path(template).is_file():
        try:
            tokenizer.chat_template = Path(template).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise DataError(f"{template} is not UTF-8; save it as UTF-8") from None
    else:
        raise DataError(f"data.template is {template!r}: neither auto, chat, plain nor a file")
    _start_once(tokenizer)  # a template that cannot be used is refused before any row is read
    return template


def encode(
    messages: Sequence[Message],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None = None,
    truncation: str = "middle",
) -> Example:
    """One conversation's tokens and labels.

    Args:
        messages: MicroStepSampler from the first to the last answer.
        tokenizer: With its template.
        max_length, truncation: As in ``Encoder``.

    Raises:
        RowError: The row cannot be used; TooLongError where it does not fit.
        DataError: The template does not end an answer.
    """
    (found,) = Encoder(tokenizer, max_length, truncation).encode_all([messages])
    if isinstance(found, RowError):
        raise found
    return found


def prompt_ids(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens after which the model is to answer, the same in training and in chat."""
    return Encoder(tokenizer).prompt(messages)


def continuation_ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens of a bare text, for a model that is to go on with it."""
    return tokenizer(text)["input_ids"]


def stop_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends an answer in the tokenizer's template."""
    return encode(SAMPLE, tokenizer).ids[-1]


def _start_once(tokenizer: PreTrainedTokenizerBase) -> None:
    """See that a conversation begins with one start token, if the tokenizer's texts have one.

    Raises:
        DataError: The template writes it more than once.
    """
    bos = tokenizer.bos_token_id
    ids = encode(SAMPLE, tokenizer).ids
    if bos is None or tokenizer("a")["input_ids"][:1] != [bos]:
        return
    if ids[:2] == [bos, bos]:
        raise DataError("this template writes the start token twice: take one of them out of it")
    if ids[0] != bos:
        # Within the template, so that whatever reads the adapter's folder writes it as well.
        tokenizer.chat_template = "{{ bos_token }}" + str(tokenizer.chat_template)
