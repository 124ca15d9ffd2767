"""Turn conversations into tokens and labels: the only place where labels are masked."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from jinja2 import TemplateError, TemplateSyntaxError
from transformers import PreTrainedTokenizerBase

from data.truncation import Span, differing_span, remove_spans, spans_to_remove
from data.types import IGNORE, DataError, Example, Message, RowError, TooLongError

TRUNCATIONS = ("middle", "drop", "error")


class Prefix(NamedTuple):
    """The first turns of a conversation, as the template is to write them."""

    turns: int
    prompt: bool
    """Whether to add what the template writes before an answer."""


class Encoder:
    """Encodes conversations; computes once what depends on the tokenizer only.

    Args:
        tokenizer: A tokenizer with a template.
        max_length: The most tokens of a row; None for no limit.
        truncation: What to do with a longer row: ``middle`` removes tokens from the middle of the
            longest turns before the first answer; ``drop`` and ``error`` refuse the row.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int | None = None,
        truncation: str = "middle",
    ) -> None:
        self.tokenizer, self.max_length, self.truncation = tokenizer, max_length, truncation
        tokenizer("")  # a call resets truncation and padding from the tokenizer's file
        added = tokenizer.added_tokens_decoder
        self.special = {i for i, token in added.items() if token.special}
        if tokenizer.unk_token_id != tokenizer.eos_token_id:
            # An unknown character inside an answer does not end it.
            self.special.discard(tokenizer.unk_token_id)
        names = [token.content for token in added.values() if not token.content.isspace()]
        self.control = re.compile("|".join(map(re.escape, names)) or "(?!)")

    def encode_all(self, conversations: Sequence[Sequence[Message]]) -> list[Example | RowError]:
        """Return tokens and labels; labeled are answers that train, with their stop tokens.

        Tokens after the last labeled one are dropped.

        Returns:
            An example for each conversation, or why it cannot be used: TooLongError if it does
            not fit.

        Raises:
            DataError: The template does not end an answer with a special token.
        """
        prefixes = [_prefixes(messages) for messages in conversations]
        rendered = self._render(conversations, prefixes)
        return [
            tokens if isinstance(tokens, RowError) else self._label(messages, tokens)
            for messages, tokens in zip(conversations, rendered, strict=True)
        ]

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens that an answer follows.

        Raises:
            RowError: The template refuses the conversation.
        """
        (tokens,) = self._render([messages], [[Prefix(len(messages), True)]])
        if isinstance(tokens, RowError):
            raise tokens
        return tokens[0]

    def _label(self, messages: Sequence[Message], tokens: list[list[int]]) -> Example | RowError:
        """Label the answers; the tokens are those of ``_prefixes``."""
        ids, *prefixes = tokens
        labels = [IGNORE] * len(ids)
        end = len(ids)
        for i, turn in enumerate(_trained_turns(messages)):
            prompt, *with_answer = prefixes[2 * i : 2 * i + 2]
            start, turn_end = len(prompt), len(with_answer[0]) if with_answer else len(ids)
            if ids[:start] != prompt:
                return RowError(
                    f"turn {turn + 1}: the template changes the text before this answer once the "
                    "answer follows, so the model would learn from another prompt than it sees in "
                    "chat"
                )
            # Special tokens in the texts are escaped, so the first one is the template's.
            # pad and eos are often one token: mask by position, or the model never learns to stop.
            stop = next((i for i in range(start, turn_end) if ids[i] in self.special), None)
            if stop is None:
                raise DataError(
                    "this template ends an answer without a special token, so the model would "
                    "never learn to stop: set `template` to plain or to a Jinja file"
                )
            if stop == start:
                return RowError(f"turn {turn + 1}: the template writes nothing of this answer")
            end = stop + 1
            if start == 0:
                return RowError(
                    f"turn {turn + 1}: the template writes nothing before this answer, and a row's "
                    "first token cannot be learned: give it a question, or set `template`"
                )
            labels[start:end] = ids[start:end]
        return self._fit(Example(ids[:end], labels[:end]), messages)

    def _fit(self, example: Example, messages: Sequence[Message]) -> Example | TooLongError:
        """Cut an example to ``max_length``."""
        ids, labels, _ = example
        if self.max_length is None or len(ids) <= self.max_length:
            return example
        cut = len(ids) - self.max_length
        reason = f"too long by {cut} tokens: it has {len(ids)}, the limit is {self.max_length}"
        if self.truncation != "middle":
            return TooLongError(reason, cut)
        prompt_length = next(i for i, label in enumerate(labels) if label != IGNORE)
        removed = spans_to_remove(self._prompt_turns(messages, ids[:prompt_length]), cut)
        if removed is None:
            reason = f"{reason}, and its prompt is too short to cut that much"
            return TooLongError(reason, cut)
        return remove_spans(example, removed)

    def _prompt_turns(self, messages: Sequence[Message], prompt: Sequence[int]) -> list[Span]:
        """Return the content of each turn before the first answer that trains.

        A turn is found by writing the prompt once more with another content in its place: what
        stays the same is the template's. Tokens that cannot be told apart count as the template's.
        """
        turns = _trained_turns(messages)[0]
        changed = [
            [*messages[:i], _with_other_content(messages[i]), *messages[i + 1 :]]
            for i in range(turns)
        ]
        rendered = self._render(changed, [[Prefix(turns, True)]] * turns)
        spans = [differing_span(prompt, new[0]) for new in rendered if isinstance(new, list)]
        return [span for span in spans if self.special.isdisjoint(prompt[span.start : span.end])]

    def _render(
        self, conversations: Sequence[Sequence[Message]], prefixes: Sequence[Sequence[Prefix]]
    ) -> list[list[list[int]] | RowError]:
        """Return the tokens of each prefix of each conversation."""
        written: list[Any] = [
            self._apply_template(messages, wanted)
            for messages, wanted in zip(conversations, prefixes, strict=True)
        ]
        parts = [part for result in written if isinstance(result, list) for part in result]
        # One call for all texts: the overhead of a call equals the work on one text.
        ids = iter(self._tokenize([part for part in parts if isinstance(part, str)]))
        return [
            [next(ids) if isinstance(part, str) else part for part in result]
            if isinstance(result, list)
            else result
            for result in written
        ]

    def _apply_template(
        self, messages: Sequence[Message], prefixes: Sequence[Prefix]
    ) -> list[str] | list[list[int]] | RowError:
        """Return texts, or tokens if the messages contain control tokens to be escaped."""
        turns = [{"role": message.role, "content": message.content} for message in messages]
        escape = any(self.control.search(message.content) for message in messages)
        try:
            return [
                self.tokenizer.apply_chat_template(
                    turns[: prefix.turns],
                    add_generation_prompt=prefix.prompt,
                    return_dict=False,
                    tokenize=escape,
                    sanitize_control_tokens=escape,
                )
                for prefix in prefixes
            ]  # type: ignore[return-value]
        except TemplateSyntaxError as error:
            raise DataError(
                f"the template has an error in line {error.lineno}: {error.message}"
            ) from None
        except TemplateError as error:
            # Some templates refuse a system message, or roles in another order.
            return RowError(f"the template refuses this conversation: {error}")

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        if not self.tokenizer.is_fast:
            return self.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        # The same tokens, without the character offsets that a normal call computes.
        encode_batch = self.tokenizer.backend_tokenizer.encode_batch_fast
        return [encoding.ids for encoding in encode_batch(texts, add_special_tokens=False)]


def _prefixes(messages: Sequence[Message]) -> list[Prefix]:
    """The whole conversation; then, for each answer that trains, its prompt and its end."""
    whole = Prefix(len(messages), False)
    prefixes = [whole]
    for turn in _trained_turns(messages):
        prefixes += [Prefix(turn, True), Prefix(turn + 1, False)]
    return prefixes[:-1] if prefixes[-1] == whole else prefixes


def _trained_turns(messages: Sequence[Message]) -> list[int]:
    """Return the indices of the answers that train."""
    return [i for i, turn in enumerate(messages) if turn.role == "assistant" and turn.train]


def _with_other_content(message: Message) -> Message:
    """Return a turn whose content neither begins nor ends as this one's does."""
    ends = (message.content[:1], message.content[-1:])
    return message._replace(content=next(letter for letter in "012" if letter not in ends))
