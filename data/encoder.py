"""Turn conversations into tokens and labels: the only place where labels are masked."""

from collections.abc import Sequence
from typing import NamedTuple

from jinja2 import TemplateError, TemplateSyntaxError
from transformers import PreTrainedTokenizerBase

from data.answer_spans import answer_spans
from data.guard import Guard, find_missing
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
        self.guard = Guard(tokenizer)

    def encode_all(self, conversations: Sequence[Sequence[Message]]) -> list[Example | RowError]:
        """Return tokens and labels; labeled are answers that train, with their stop tokens.

        Tokens after the last labeled one are dropped. A text without question is labeled whole.

        Returns:
            An example for each conversation, or why it cannot be used: TooLongError if it does
            not fit.

        Raises:
            DataError: The template does not end an answer with a special token.
        """
        written = [self._write(messages, _prefixes(messages)) for messages in conversations]
        texts = [text for result in written if not isinstance(result, RowError) for text in result]
        ids = iter(self.guard.tokenize(texts))
        return [
            result
            if isinstance(result, RowError)
            else self._label(messages, result, [next(ids) for _ in result])
            for messages, result in zip(conversations, written, strict=True)
        ]

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens that an answer follows.

        Raises:
            RowError: The template refuses the conversation.
        """
        written = self._write(messages, [Prefix(len(messages), True)])
        if isinstance(written, RowError):
            raise written
        ids = self.guard.tokenize(written)[0]
        return self._start() + ids if _is_text(messages) else ids

    def _label(
        self, messages: Sequence[Message], texts: list[str], tokens: list[list[int]]
    ) -> Example | RowError:
        """Label the answers; texts and tokens are those of ``_prefixes``."""
        guarded = sum(len(self.guard.marked.findall(text)) for text in texts[:1])
        if _is_text(messages):
            ids = [*self._start(), *tokens[0]]
            if (end_token := self.tokenizer.eos_token_id) is not None:
                ids.append(end_token)
            # No token predicts a row's first one.
            return self._fit(Example(ids, [IGNORE, *ids[1:]], 0, guarded), messages)
        turns = _trained_turns(messages)
        changed = [
            turn
            for turn, prompt in zip(turns, texts[1::2], strict=True)
            if not texts[0].startswith(prompt)
        ]
        if changed:
            return RowError(
                f"turn {changed[0] + 1}: the template changes the text before this answer once the "
                "answer follows, so the model would learn from another prompt than it sees in "
                "chat"
            )
        if missing := find_missing(messages, texts[0], texts[1::2], self.guard):
            return RowError(missing)
        ids, spans = answer_spans(self.guard, texts, tokens)
        labels = [IGNORE] * len(ids)
        end = len(ids)
        for turn, (start, turn_end) in zip(turns, spans, strict=True):
            # Special tokens in the texts are escaped, so the first one is the template's.
            # pad and eos are often one token: mask by position, or the model never learns to stop.
            stop = next((i for i in range(start, turn_end) if ids[i] in self.special), None)
            if stop is None:
                raise DataError(
                    "this template ends an answer without a special token, so the model would "
                    "never learn to stop: set `template` to plain or to a Jinja file"
                )
            end = stop + 1
            if start == 0:
                return RowError(
                    f"turn {turn + 1}: the template writes nothing before this answer, and a row's "
                    "first token cannot be learned: give it a question, or set `template`"
                )
            labels[start:end] = ids[start:end]
        return self._fit(Example(ids[:end], labels[:end], 0, guarded), messages)

    def _start(self) -> list[int]:
        """Return the token that begins the tokenizer's texts, if it has one."""
        bos = self.tokenizer.bos_token_id
        return [bos] if bos is not None and self.tokenizer("a")["input_ids"][:1] == [bos] else []

    def _fit(self, example: Example, messages: Sequence[Message]) -> Example | TooLongError:
        """Cut an example to ``max_length``."""
        ids, labels, *_ = example
        if self.max_length is None or len(ids) <= self.max_length:
            return example
        cut = len(ids) - self.max_length
        reason = f"too long by {cut} tokens: it has {len(ids)}, the limit is {self.max_length}"
        if self.truncation != "middle":
            return TooLongError(reason, cut)
        if _is_text(messages):
            return Example(ids[:-cut], labels[:-cut], cut, example.guarded)
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
        written = [self._write(new, [Prefix(turns, True)]) for new in changed]
        texts = [text for new in written if not isinstance(new, RowError) for text in new]
        spans = [differing_span(prompt, new) for new in self.guard.tokenize(texts)]
        return [span for span in spans if self.special.isdisjoint(prompt[span.start : span.end])]

    def _write(
        self, messages: Sequence[Message], prefixes: Sequence[Prefix]
    ) -> list[str] | RowError:
        """Return each prefix as the template writes it, with marks around special tokens."""
        turns = self.guard.mark(messages)
        if _is_text(messages):
            return [turns[0]["content"]]
        try:
            return [
                str(
                    self.tokenizer.apply_chat_template(
                        turns[: prefix.turns], add_generation_prompt=prefix.prompt, tokenize=False
                    )
                )
                for prefix in prefixes
            ]
        except TemplateSyntaxError as error:
            raise DataError(
                f"the template has an error in line {error.lineno}: {error.message}"
            ) from None
        except TemplateError as error:
            # Some templates refuse a system message, or roles in another order.
            return RowError(f"the template refuses this conversation: {error}")


def _prefixes(messages: Sequence[Message]) -> list[Prefix]:
    """The whole conversation; then, for each answer that trains, its prompt and its end."""
    whole = Prefix(len(messages), False)
    prefixes = [whole]
    for turn in _trained_turns(messages):
        prefixes += [Prefix(turn, True), Prefix(turn + 1, False)]
    return prefixes[:-1] if prefixes[-1] == whole else prefixes


def _is_text(messages: Sequence[Message]) -> bool:
    """Return whether this is a text without question and answer."""
    return messages[0].role == "text"


def _trained_turns(messages: Sequence[Message]) -> list[int]:
    """Return the indices of the answers that train."""
    return [i for i, turn in enumerate(messages) if turn.role == "assistant" and turn.train]


def _with_other_content(message: Message) -> Message:
    """Return a turn whose content neither begins nor ends as this one's does."""
    ends = (message.content[:1], message.content[-1:])
    return message._replace(content=next(letter for letter in "012" if letter not in ends))
