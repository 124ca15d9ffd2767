"""The template that writes a conversation as text, the same in training and in chat."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from data.encoder import Encoder
from data.messages import tr
from data.sandbox import check_template
from data.templates.variables import Value, add_values, read_values
from data.types import DataError, Example, Message, RowError

PLAIN = "{% for message in messages %}{{ message['content'] + eos_token }}{% endfor %}"
SAMPLE = (Message("user", "?"), Message("assistant", "!"))


def choose_template(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    template_kwargs: Mapping[str, Value] | None = None,
) -> str:
    """Set the tokenizer's template, which is later saved with the adapter.

    Args:
        tokenizer: Changed in place.
        template: ``chat``, the model's own; ``plain``, each text followed by the end token;
            ``auto``, chat if the model has one and plain otherwise; or a Jinja file.
        template_kwargs: Values for variables that the template reads, such as enable_thinking; they
            are written into the template, and replace those that were written before.

    Returns:
        The choice: ``chat``, ``plain`` or the file's name.

    Raises:
        DataError: There is no such template, it cannot be used, or ``plain`` lacks an end token.
    """
    if template == "auto":
        template = "chat" if tokenizer.chat_template else "plain"
    own = {} if template == "plain" else read_values(tokenizer)
    values = {**own, **(template_kwargs or {})}
    if template == "chat":
        if not tokenizer.chat_template:
            raise DataError(
                tr(
                    "`template` is chat, but this model has no chat template: set "
                    "`template` to plain or to a Jinja file"
                )
            )
    elif template == "plain":
        if tokenizer.eos_token is None:
            raise DataError(
                tr(
                    "`template` is plain, but this model has no end token: set `template` "
                    "to a Jinja file"
                )
            )
        tokenizer.chat_template = PLAIN
    elif Path(template).is_file():
        try:
            tokenizer.chat_template = Path(template).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise DataError(
                tr("{template} is not UTF-8: save it as UTF-8", template=template)
            ) from None
    else:
        raise DataError(
            tr(
                "`template` is {template!r}, and there is no such file: choose auto, chat, "
                "plain or a Jinja file",
                template=template,
            )
        )
    if values != read_values(tokenizer):
        add_values(tokenizer, values)
    check_template(tokenizer)
    _ensure_one_start_token(tokenizer)  # also finds an unusable template before any row is read
    return template


def encode(
    messages: Sequence[Message],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None = None,
    truncation: str = "middle",
) -> Example:
    """Return the tokens and labels of one conversation.

    Args:
        messages: The turns.
        tokenizer: A tokenizer with a template.
        max_length, truncation: As in ``Encoder``.

    Raises:
        RowError: The row cannot be used; TooLongError if it does not fit.
        DataError: The template does not end an answer with a special token, or it writes earlier
            answers differently once others follow: ``Encoder.encode_all`` gives several examples.
    """
    (result,) = Encoder(tokenizer, max_length, truncation).encode_all([messages])
    if isinstance(result, RowError):
        raise result
    if len(result) > 1:
        raise DataError(
            tr(
                "the conversation becomes {examples} examples: call Encoder.encode_all",
                examples=len(result),
            )
        )
    return result[0]


def prompt_ids(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens that an answer follows, the same in training and in chat.

    Raises:
        RowError: The template refuses the conversation.
    """
    return Encoder(tokenizer).encode_prompt(messages)


def continuation_ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens of a text without template, for a model that continues it."""
    return tokenizer(text)["input_ids"]


def stop_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that ends an answer in the tokenizer's template."""
    check_template(tokenizer)
    return encode(SAMPLE, tokenizer).ids[-1]


def _ensure_one_start_token(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make the template write one start token, if the tokenizer begins its texts with one.

    Raises:
        DataError: The template writes it more than once.
    """
    bos = tokenizer.bos_token_id
    ids = encode(SAMPLE, tokenizer).ids
    if bos is None or tokenizer("a")["input_ids"][:1] != [bos]:
        return
    if ids[:2] == [bos, bos]:
        raise DataError(
            tr("this template writes the start token twice: remove one of the two from it")
        )
    if ids[0] != bos:
        # In the template itself, so that every tool that loads the adapter writes it too.
        tokenizer.chat_template = "{{ bos_token }}" + str(tokenizer.get_chat_template())
