"""Turn conversations into tokens and labels: the only place where labels are masked."""

import contextlib
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from data.learned_answers import Learned, answer_ids, group
from data.messages import tr
from data.templates.guard import Guard
from data.templates.thoughts import CLOSE, OPEN
from data.templates.writing import Writer, Written, count_left_out, trained_turns
from data.truncation import Span, differing_span, remove_spans, spans_to_remove
from data.types import IGNORE, DataError, Example, Message, RowError, TooLongError

TRUNCATIONS = ("middle", "drop", "error")


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
        self.special = {
            i for i, token in added.items() if token.special and token.content not in (OPEN, CLOSE)
        }
        if tokenizer.unk_token_id != tokenizer.eos_token_id:
            # An unknown character inside an answer does not end it.
            self.special.discard(tokenizer.unk_token_id)
        self.guard = Guard(tokenizer)
        self.writer = Writer(tokenizer, self.guard)

    def encode_all(
        self, conversations: Sequence[Sequence[Message]]
    ) -> list[list[Example] | RowError]:
        """Return tokens and labels; labeled are answers that train, with their stop tokens.

        Each answer follows the tokens of the prompt that chat gives, and tokens after the last
        labeled one are dropped. A text without question is labeled whole.

        Returns:
            The examples of each conversation: one, unless the template writes an earlier answer
            differently once others follow. Or why it cannot be used: TooLongError if one of its
            examples does not fit.

        Raises:
            DataError: The template does not end an answer with a special token.
        """
        written = [self.writer.answers(messages) for messages in conversations]
        texts = [
            text
            for result in written
            if not isinstance(result, RowError)
            for answer in result
            for text in (answer.prompt, answer.whole)
        ]
        ids = iter(self.guard.tokenize(texts))
        return [
            result
            if isinstance(result, RowError)
            else self._examples(messages, result, [(next(ids), next(ids)) for _ in result])
            for messages, result in zip(conversations, written, strict=True)
        ]

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens that an answer follows.

        Raises:
            RowError: The template refuses the conversation.
        """
        if _is_text(messages):
            turns = self.guard.mark(messages)
            return self._start() + self.guard.tokenize([turns[0]["content"]])[0]
        return self.guard.tokenize([self.writer.render(self.guard.mark(messages), prompt=True)])[0]

    def _examples(
        self,
        messages: Sequence[Message],
        written: list[Written],
        tokens: list[tuple[list[int], list[int]]],
    ) -> list[Example] | RowError:
        """Return the examples of a conversation.

        Args:
            messages: The turns.
            written: The answers that train.
            tokens: Of the prompt and the whole of each answer.
        """
        alone = _is_text(messages)
        if alone:
            ids = [*self._start(), *tokens[0][1]]
            if (end_token := self.tokenizer.eos_token_id) is not None:
                ids.append(end_token)
            # No token predicts a row's first one.
            examples = [Example(ids, [IGNORE, *ids[1:]], messages=messages)]
        else:
            pairs = zip(written, tokens, strict=True)
            answers = [self._learned(answer, *of_answer) for answer, of_answer in pairs]
            if without := [answer.turn for answer in answers if answer.start == 0]:
                return RowError(
                    tr(
                        "turn {turn}: the template writes nothing before this answer, "
                        "and a row's first token cannot be learned: give it a question, or "
                        "set `template`",
                        turn=without[0] + 1,
                    )
                )
            examples = group(answers, messages)
        fitted: list[Example] = []
        too_long: list[TooLongError] = []
        for result in map(self._fit, examples):
            if isinstance(result, TooLongError):
                too_long.append(result)
            else:
                fitted.append(result)
        if too_long:
            return max(too_long, key=lambda error: error.tokens)
        # Counted once for the conversation.
        fitted[-1] = fitted[-1]._replace(
            guarded=len(self.guard.marked.findall(written[-1].whole)),
            closed=sum(answer.closed for answer in written),
            unthought=0 if alone else count_left_out(messages, written, self.guard),
        )
        return fitted

    def _learned(self, answer: Written, prompt: list[int], whole: list[int]) -> Learned:
        """Return an answer in tokens, from those of its prompt and of the whole."""
        ids = answer_ids(self.guard, answer, prompt, whole)
        # Special tokens in the texts are escaped, so the first one is the template's.
        # pad and eos are often one token: mask by position, or the model never learns to stop.
        stop = next((i for i in range(len(prompt), len(ids)) if ids[i] in self.special), None)
        if stop is None:
            raise DataError(
                tr(
                    "this template ends an answer without a special token, so the model "
                    "would never learn to stop: set `template` to plain or to a Jinja file"
                )
            )
        return Learned(answer.turn, ids[: stop + 1], len(prompt))

    def _start(self) -> list[int]:
        """Return the token that begins the tokenizer's texts, if it has one."""
        bos = self.tokenizer.bos_token_id
        return [bos] if bos is not None and self.tokenizer("a")["input_ids"][:1] == [bos] else []

    def _fit(self, example: Example) -> Example | TooLongError:
        """Cut an example to ``max_length``."""
        ids, labels = example.ids, example.labels
        if self.max_length is None or len(ids) <= self.max_length:
            return example
        cut = len(ids) - self.max_length
        reason = tr(
            "too long by {cut} tokens: it has {tokens}, the limit is {max_length}",
            cut=cut,
            tokens=len(ids),
            max_length=self.max_length,
        )
        if self.truncation != "middle":
            return TooLongError(reason, cut)
        if _is_text(example.messages):
            return example._replace(ids=ids[:-cut], labels=labels[:-cut], cut=cut)
        prompt_length = next(i for i, label in enumerate(labels) if label != IGNORE)
        removed = spans_to_remove(self._prompt_turns(example.messages, ids[:prompt_length]), cut)
        if removed is None:
            reason = tr("{reason}, and its prompt is too short to cut that much", reason=reason)
            return TooLongError(reason, cut)
        return remove_spans(example, removed)

    def _prompt_turns(self, messages: Sequence[Message], prompt: Sequence[int]) -> list[Span]:
        """Return the content of each turn before the first answer that trains.

        A turn is found by writing the prompt once more with another content in its place: what
        stays the same is the template's. Tokens that cannot be told apart count as the template's.
        """
        turns = messages[: trained_turns(messages)[0]]
        texts = []
        for i, turn in enumerate(turns):
            changed = [*turns[:i], _with_other_content(turn), *turns[i + 1 :]]
            with contextlib.suppress(RowError):
                texts.append(self.writer.render(self.guard.mark(changed), prompt=True))
        spans = [differing_span(prompt, new) for new in self.guard.tokenize(texts)]
        return [span for span in spans if self.special.isdisjoint(prompt[span.start : span.end])]


def _is_text(messages: Sequence[Message]) -> bool:
    """Return whether this is a text without question and answer."""
    return messages[0].role == "text"


def _with_other_content(message: Message) -> Message:
    """Return a turn whose content neither begins nor ends as this one's does."""
    ends = (message.content[:1], message.content[-1:])
    return message._replace(content=next(letter for letter in "012" if letter not in ends))
