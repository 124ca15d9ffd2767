"""The texts that a chat template writes around each message, found by rendering conversations."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from transformers import PreTrainedTokenizerBase

from data.sandbox import check_template
from data.template import continuation_ids
from lit.messages import tr
from lora.config import ConfigError

TURNS = 3
"""The most questions of a conversation that is compared."""
Message = dict[str, str]


@dataclass(frozen=True)
class Turns:
    """A chat template as fixed texts around the messages.

    Args:
        head: What begins a conversation without a system text.
        user: The texts before and after a question.
        assistant: The texts before and after an earlier answer.
        prompt: What follows the last question.
        place: Where a system text is written: before the first question, ``in`` the ``first`` or
            the ``last`` one, or nowhere, because the template does not take any.
        system: The texts before and after a system text.
        system_head: What begins a conversation with a system text that is in a question.
        default: The system text that the template writes if a conversation has none, or None.
    """

    head: str
    user: tuple[str, str]
    assistant: tuple[str, str]
    prompt: str
    place: Literal["before", "first", "last", "nowhere"] = "nowhere"
    system: tuple[str, str] = ("", "")
    system_head: str = ""
    default: str | None = None

    def render(self, messages: Sequence[Message]) -> str:
        """Return a conversation that ends with a question, as the template writes it."""
        system = next((m["content"] for m in messages if m["role"] == "system"), None)
        turns = [m for m in messages if m["role"] != "system"]
        system = self.default if system is None else system
        shown = "" if system is None else f"{self.system[0]}{system}{self.system[1]}"
        at = {"before": None, "first": 0, "last": len(turns) - 1}.get(self.place, -1)
        text = self.head if system is None or self.place == "nowhere" else self.system_head
        text += shown if at is None else ""
        for i, message in enumerate(turns):
            before, after = self.user if message["role"] == "user" else self.assistant
            text += f"{before}{shown if i == at else ''}{message['content']}{after}"
        return text + self.prompt


def find_turns(tokenizer: PreTrainedTokenizerBase) -> Turns:
    """Return the fixed texts of a tokenizer's chat template.

    Raises:
        ConfigError: It cannot be written so: conversations of one to three questions, with and
            without a system text, would differ.
        DataError: The template does not end.
    """
    check_template(tokenizer)
    try:
        turns = _with_system(_without_system(tokenizer), tokenizer)
        wrong = turns is None or any(
            _render(conversation, tokenizer) != turns.render(conversation)
            for mark in "ab"
            for questions in range(1, TURNS + 1)
            for conversation in (
                _conversation(questions, mark),
                *([_conversation(questions, mark, True)] if turns.place != "nowhere" else []),
            )
        )
    except (ValueError, IndexError):
        wrong = True
    if wrong or turns is None:
        raise ConfigError(
            tr(
                "the chat template of training cannot be written as a template of Ollama: it "
                "writes a turn differently at other places of a conversation. Leave out "
                "--ollama, and serve the merged folder with a program that reads "
                "chat_template.jinja, such as vLLM or llama-server --jinja"
            )
        )
    return turns


def _conversation(questions: int, mark: str, system: bool = False) -> list[Message]:
    turns = [
        {"role": role, "content": f"lit-lora-{mark}-{role}-{i}"}
        for i in range(questions)
        for role in ("user", "assistant")
    ]
    first = [{"role": "system", "content": f"lit-lora-{mark}-system"}] if system else []
    return [*first, *turns[:-1]]


def _without_system(tokenizer: PreTrainedTokenizerBase) -> Turns:
    asked = _conversation(1, "a")
    answered = _conversation(2, "a")[:-1]
    whole = _split(_render(_conversation(2, "a"), tokenizer), _conversation(2, "a"))
    after_question = _split(_render(asked, tokenizer, False), asked)[-1]
    after_answer = _split(_render(answered, tokenizer, False), answered)[-1]
    before_question = _cut(whole[2], after_answer)
    return Turns(
        head=_cut_end(whole[0], before_question),
        user=(before_question, after_question),
        assistant=(_cut(whole[1], after_question), after_answer),
        prompt=_cut(whole[-1], after_question),
    )


def _with_system(turns: Turns, tokenizer: PreTrainedTokenizerBase) -> Turns | None:
    """Return turns with the place of a system text; None if there is no such form."""
    messages = _conversation(2, "a", True)
    try:
        text = _render(messages, tokenizer)
    except Exception:  # templates refuse roles with exceptions of their own
        return turns
    if messages[0]["content"] not in text:
        return turns
    before = turns.user[0]
    order = sorted(messages, key=lambda message: text.index(message["content"]))
    parts, at = _split(text, order), order.index(messages[0])
    if at == 0 and parts[1].endswith(before) and (before or not parts[1]):
        system = (parts[0], _cut_end(parts[1], before))
        found = replace(turns, place="before", system=system)
        # A default text stands where a given one would.
        if turns.head.startswith(system[0]) and turns.head.endswith(system[1]) and turns.head:
            default = turns.head[len(system[0]) : len(turns.head) - len(system[1])]
            with_default = replace(found, default=default, head="")
            if default and len("".join(system)) + len(default) == len(turns.head):
                return with_default
        return found
    if at == 0:
        head = turns.head if parts[0].startswith(turns.head) else parts[0].partition(before)[0]
        system = (_cut(parts[0], head + before), parts[1])
        return replace(turns, place="first", system=system, system_head=head)
    system = (_cut(parts[at], turns.assistant[1] + before), parts[at + 1])
    head = _cut_end(parts[0], before)
    return replace(turns, place="last", system=system, system_head=head)


def _split(text: str, messages: Sequence[Message]) -> list[str]:
    """Return the texts around the contents of messages, which must each occur once, in order."""
    parts = []
    for message in messages:
        if text.count(message["content"]) != 1:
            raise ValueError(message["content"])
        part, _, text = text.partition(message["content"])
        parts.append(part)
    return [*parts, text]


def _cut(text: str, start: str) -> str:
    if not text.startswith(start):
        raise ValueError(text)
    return text[len(start) :]


def _cut_end(text: str, end: str) -> str:
    if not text.endswith(end):
        raise ValueError(text)
    return text[: len(text) - len(end)]


def _render(
    messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, prompt: bool = True
) -> str:
    text = str(
        tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=prompt)
    )
    # Ollama adds the bos token itself.
    return text.removeprefix(tokenizer.bos_token or "") if _adds_bos(tokenizer) else text


def _adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    return continuation_ids("a", tokenizer)[0] == tokenizer.bos_token_id
