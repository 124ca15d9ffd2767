"""Conversations become tokens and labels: the one place where labels are masked."""

import re
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError
from transformers import PreTrainedTokenizerBase

from data.types import IGNORE, DataError, Example, Message, RowError, TooLongError

TRUNCATIONS = ("middle", "drop", "error")
MIN_PROMPT = 16
"""Tokens of a cut prompt that must remain; with fewer, the row is left out."""


class Encoder:
    """Writes conversations as tokens; what follows from the tokenizer alone is found once.

    Args:
        tokenizer: With its template.
        max_length: Tokens a row may have; None for any number.
        truncation: What to do with a longer one: ``middle`` takes tokens out of the middle of what
            stands before the first answer; ``drop`` and ``error`` refuse the row.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int | None = None,
        truncation: str = "middle",
    ) -> None:
        self.tokenizer, self.max_length, self.truncation = tokenizer, max_length, truncation
        tokenizer("")  # takes back a truncation or padding that the tokenizer's file asks for
        added = tokenizer.added_tokens_decoder
        self.special = {i for i, token in added.items() if token.special}
        if tokenizer.unk_token_id != tokenizer.eos_token_id:
            # What stands for an unknown letter ends nothing.
            self.special.discard(tokenizer.unk_token_id)
        names = [token.content for token in added.values() if not token.content.isspace()]
        self.control = re.compile("|".join(map(re.escape, names)) or "(?!)")

    def encode_all(self, conversations: Sequence[Sequence[Message]]) -> list[Example | RowError]:
        """Tokens of each, with labels on the answers that train and on their stop tokens.

        Args:
            conversations: MicroStepSampler from the first to the last answer.

        Returns:
            For each an example, or why it cannot be used: TooLongError where it does not fit.

        Raises:
            DataError: The template does not end an answer.
        """
        wanted = [self._wanted(messages) for messages in conversations]
        return [
            found if isinstance(found, RowError) else self._label(messages, found)
            for messages, found in zip(
                conversations, self._render(conversations, wanted), strict=True
            )
        ]

    def _wanted(self, messages: Sequence[Message]) -> list[tuple[int, bool]]:
        """Which parts show where answers stand: what is before each, and through each."""
        whole = (len(messages), False)
        wanted = [whole]
        for place in _trained(messages):
            wanted += [(place, True), (place + 1, False)]
        return wanted[:-1] if wanted[-1] == whole else wanted

    def _label(self, messages: Sequence[Message], found: list[list[int]]) -> Example | RowError:
        ids, *parts = found
        labels = [IGNORE] * len(ids)
        end = len(ids)
        for i, place in enumerate(_trained(messages)):
            before, *through = parts[2 * i : 2 * i + 2]
            start, turn = len(before), len(through[0]) if through else len(ids)
            if ids[:start] != before:
                return RowError(
                    f"turn {place + 1}: the template writes what comes before this answer "
                    "otherwise once the answer is there, so chat would not show the model what it "
                    "learned from"
                )
            # Control tokens in the texts stay text, so the first is the template's end of the turn.
            # pad and eos are one token in many tokenizers: mask by place, or none learns to stop.
            stop = next((i for i in range(start, turn) if ids[i] in self.special), None)
            if stop is None:
                raise DataError(
                    "this template ends an answer without a special token, so the model would "
                    "never learn to stop: use data.template plain, or a file"
                )
            if stop == start:
                return RowError(f"turn {place + 1}: the template writes nothing of this answer")
            end = stop + 1
            labels[start:end] = ids[start:end]
        return self._fit(Example(ids[:end], labels[:end]))

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The tokens after which an answer is to follow.

        Raises:
            RowError: The template refuses the conversation.
        """
        (found,) = self._render([messages], [[(len(messages), True)]])
        if isinstance(found, RowError):
            raise found
        return found[0]

    def _fit(self, example: Example) -> Example | TooLongError:
        ids, labels, _ = example
        if self.max_length is None or len(ids) <= self.max_length:
            return example
        cut = len(ids) - self.max_length
        too_long = f"too long by {cut}: {len(ids)} tokens, data.max_length is {self.max_length}"
        if self.truncation != "middle":
            return TooLongError(too_long, cut)
        first = next(i for i, label in enumerate(labels) if label != IGNORE)
        keep = first - cut
        if keep < MIN_PROMPT:
            reason = f"{too_long}, and too little of it is prompt that could be cut"
            return TooLongError(reason, cut)
        # The template's header leads and the question's end comes last: both stay.
        head = keep // 2
        tail = head + cut
        return Example(ids[:head] + ids[tail:], labels[:head] + labels[tail:], cut)

    def _render(
        self,
        conversations: Sequence[Sequence[Message]],
        wanted: Sequence[Sequence[tuple[int, bool]]],
    ) -> list[list[list[int]] | RowError]:
        """Tokens of a conversation's first turns, for each (how many, is an answer due)."""
        found: list[Any] = [self._write(*pair) for pair in zip(conversations, wanted, strict=True)]
        texts = [text for parts in found if isinstance(parts, list) for text in parts]
        # One call for all of them: a call costs as much as the work on a text.
        ids = iter(self._tokens([text for text in texts if isinstance(text, str)]))
        return [
            [next(ids) if isinstance(part, str) else part for part in parts]
            if isinstance(parts, list)
            else parts
            for parts in found
        ]

    def _write(
        self, messages: Sequence[Message], wanted: Sequence[tuple[int, bool]]
    ) -> list[str] | list[list[int]] | RowError:
        """Texts, or tokens at once where control tokens in the messages are to stay text."""
        turns = [{"role": message.role, "content": message.content} for message in messages]
        guarded = any(self.control.search(message.content) for message in messages)
        try:
            return [
                self.tokenizer.apply_chat_template(
                    turns[:count],
                    add_generation_prompt=asked,
                    return_dict=False,
                    tokenize=guarded,
                    sanitize_control_tokens=guarded,
                )
                for count, asked in wanted
            ]  # type: ignore[return-value]
        except TemplateSyntaxError as error:
            raise DataError(f"the template is broken in its line {error.lineno}: {error}") from None
        except TemplateError as error:
            # Some templates refuse a system message, or roles out of their order.
            return RowError(f"the template refuses this conversation: {error}")

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        if not self.tokenizer.is_fast:
            return self.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        # The same tokens without the offsets that a call works out for each.
        batch = self.tokenizer.backend_tokenizer.encode_batch_fast
        return [found.ids for found in batch(texts, add_special_tokens=False)]


def _trained(messages: Sequence[Message]) -> list[int]:
    return [i for i, turn in enumerate(messages) if turn.role == "assistant" and turn.train]
