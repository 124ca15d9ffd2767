"""What a template writes of a conversation: nothing is missing, each answer has its prompt."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jinja2 import TemplateError, TemplateSyntaxError
from transformers import PreTrainedTokenizerBase

from data.messages import tr
from data.templates.guard import MARKS, Guard
from data.templates.thoughts import CLOSE, answer_start, continued, split_thought
from data.types import DataError, Message, RowError


class Written(NamedTuple):
    """An answer to learn, as a template writes it."""

    turn: int
    prompt: str
    """What chat gives the model to go on."""
    whole: str
    """The conversation to the end of the answer; it begins with the prompt."""
    closed: bool
    """Whether it closes a thought that its prompt opens, while the template writes no end of it."""


class Writer:
    """Writes conversations with a tokenizer's template.

    Args:
        tokenizer: A tokenizer with a template.
        guard: Marks the special tokens in the texts.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, guard: Guard) -> None:
        self.tokenizer, self.guard = tokenizer, guard

    def answers(self, messages: Sequence[Message]) -> list[Written] | RowError:
        """Return each answer that trains as the template writes it, with marked special tokens."""
        turns = self.guard.mark(messages)
        if messages[0].role == "text":
            return [Written(0, "", turns[0]["content"], False)]
        answers = []
        try:
            for i in trained_turns(messages):
                prompt = self.render(turns[:i], prompt=True)
                written = self.render(turns[: i + 1], prompt=False)
                whole = continued(prompt, written, turns[i])
                if whole is None:
                    return RowError(
                        tr("turn {turn}: {reason}", turn=i + 1, reason=_why_apart(prompt, turns[i]))
                    )
                unclosed = CLOSE not in written[answer_start(prompt) :]
                answers.append(
                    Written(i, prompt, whole, unclosed and CLOSE in whole[len(prompt) :])
                )
        except RowError as error:
            return error
        missing = find_missing(messages, answers, self.guard)
        return RowError(missing) if missing else answers

    def render(self, turns: list[dict[str, str]], prompt: bool) -> str:
        """Return what the template writes, with what comes before an answer if ``prompt``.

        Raises:
            RowError: The template refuses the conversation.
        """
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    turns, add_generation_prompt=prompt, tokenize=False
                )
            )
        except TemplateSyntaxError as error:
            raise DataError(
                tr(
                    "the template has an error in line {line}: {error}",
                    line=error.lineno,
                    error=error.message,
                )
            ) from None
        except TemplateError as error:
            # Some templates refuse a system message, or roles in another order.
            raise RowError(
                tr("the template refuses this conversation: {error}", error=error)
            ) from None


def trained_turns(messages: Sequence[Message]) -> list[int]:
    """Return the indices of the answers that train."""
    return [i for i, turn in enumerate(messages) if turn.role == "assistant" and turn.train]


def find_missing(messages: Sequence[Message], answers: Sequence[Written], guard: Guard) -> str:
    """Return why a template does not write a conversation, or an empty text.

    White space aside, each text must stand in what the template wrote, and each answer that trains,
    with its thought, between its prompt and the template's first special token after it. The
    thoughts of earlier answers may be left out, as they are in chat.

    Args:
        messages: The conversation.
        answers: The answers that train.
        guard: Marked the special tokens in all texts.
    """
    turns = guard.mark(messages)
    for turn, prompt, whole, _ in answers:
        learned = whole[answer_start(prompt) :]
        learned = learned[: guard.stop_in(learned)]
        wanted = {turns[turn]["content"], turns[turn].get("thinking", "")}
        if not all(_without(text, learned) is not None for text in wanted):
            return _reason(turn, messages[turn])
    last, _, rest, _ = answers[-1]
    # The longest first: a short text may also stand inside of another one.
    for i in sorted(range(last + 1), key=lambda i: -len(turns[i]["content"])):
        text = turns[i]["content"]
        without = _without(text, rest)
        if without is None and i < last and messages[i].role == "assistant":
            without = _without(split_thought(text)[1], rest)
        if without is None:
            return _reason(i, messages[i])
        rest = without
    return ""


def count_left_out(messages: Sequence[Message], answers: Sequence[Written], guard: Guard) -> int:
    """Return how many answers before the last that trains neither train nor keep their thoughts.

    Args:
        messages, answers, guard: As in ``find_missing``.
    """
    last, _, whole, _ = answers[-1]
    thoughts = [
        turn.get("thinking") or split_thought(turn["content"])[0]
        for turn, message in zip(guard.mark(messages[:last]), messages, strict=False)
        if message.role == "assistant" and not message.train
    ]
    return sum(_without(thought, whole) is None for thought in thoughts)


def _without(text: str, written: str) -> str | None:
    """Return what a template wrote without a text, or None if the text does not stand there."""
    if text in written:
        return written.replace(text, "\0", 1)
    text, written = ("".join(MARKS.sub("", value).split()) for value in (text, written))
    return written.replace(text, "\0", 1) if text in written else None


def _reason(turn: int, message: Message) -> str:
    thinks = "</think>" in message.content or message.reasoning_content
    what = {"assistant": tr("answer"), "user": tr("question")}.get(message.role)
    if what is None:
        what = tr("{role} text", role=message.role)
    if thinks:
        return tr(
            "turn {turn}: the template does not write all of this {what}, as it leaves out what "
            "the model thinks: set `template` to plain or to another Jinja file, or change the row",
            turn=turn + 1,
            what=what,
        )
    return tr(
        "turn {turn}: the template does not write all of this {what}: set `template` to plain or "
        "to another Jinja file, or change the row",
        turn=turn + 1,
        what=what,
    )


def _why_apart(prompt: str, turn: Mapping[str, str]) -> str:
    """Return why an answer does not go on after its prompt."""
    if answer_start(prompt) < len(prompt) and (turn.get("thinking") or CLOSE in turn["content"]):
        return tr(
            "this answer has a thought, but the prompt that chat gives says that the "
            "model does not think: set `template_kwargs` so that it does, or remove the "
            "thought"
        )
    return tr(
        "the template changes the text before this answer once the answer follows, so "
        "the model would learn from another prompt than it sees in chat"
    )
