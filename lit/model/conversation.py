"""A conversation with a model and, if it has an adapter, with its base; one copy of the weights."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data.template import continuation_ids, prompt_ids
from data.types import Message
from lit.model.generation import stream, use_model
from lit.model.sampling import Sampling

HELP = """\
/base /tuned /both   choose who answers; with /both the tuned answer goes into the history
/reset               clear the history
/seed N              set the seed of the next answers
/system TEXT         set the system text; without TEXT, remove it
/save FILE           append the conversation to a .jsonl file, as a training row
/help /quit
Ctrl-C stops an answer. Pasted lines are one question; Alt-Enter starts a new line."""
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
ANSWERING = {"base": ("base",), "tuned": ("tuned",), "both": ("base", "tuned")}
"""The models that answer a question, by command."""


class Conversation:
    """The turns so far, and which models answer the next question.

    Args:
        model: With an adapter or without, in eval mode.
        tokenizer: With its template; without one, the bare text of a question is continued.
        sampling: How tokens are drawn.
        tuned: Whether the model has an adapter.
        write: Shows text.
        system: The system text.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        sampling: Sampling,
        tuned: bool,
        write: Callable[[str], None],
        system: str = "",
    ) -> None:
        self.model, self.tokenizer, self.sampling = model, tokenizer, sampling
        self.tuned, self.write, self.system = tuned, write, system
        self.answering: Sequence[str] = ANSWERING["tuned" if tuned else "base"]
        self.turns: list[Message] = []

    def handle(self, text: str) -> bool:
        """Run what the person typed, a command or a question; return False to end."""
        if not text.startswith("/"):
            self.ask(text)
            return True
        name, _, argument = text[1:].partition(" ")
        argument = argument.strip()
        if name == "quit":
            return False
        if name in ANSWERING:
            self._choose(name)
        elif name == "reset":
            self.turns = []
            self.write("history cleared\n")
        elif name == "seed" and argument.isdigit():
            self.sampling = replace(self.sampling, seed=int(argument))
            self.write(f"seed {argument}\n")
        elif name == "system":
            self.system = argument
            self.write(f"system: {argument or 'none'}\n")
        elif name == "save" and argument:
            self._save(Path(argument))
        elif name == "help":
            self.write(HELP + "\n")
        else:
            self.write(f"unknown command {text}; /help lists the commands\n")
        return True

    def ask(self, question: str) -> None:
        """Answer a question with each chosen model; the last answer goes into the history."""
        turn = Message("user", question)
        answer = ""
        for which in self.answering:
            if len(self.answering) > 1:
                self.write(f"[{which}] ")
            answer = self._answer(which, [*self._system_turn(), *self.turns, turn])
            self.write("\n")
        self.turns += [turn, Message("assistant", answer)]

    def _answer(self, which: str, history: list[Message]) -> str:
        if self.tokenizer.chat_template:
            ids = prompt_ids(history, self.tokenizer)
        else:
            ids = continuation_ids(history[-1].content, self.tokenizer)
        pieces: list[str] = []

        def show(piece: str) -> None:
            pieces.append(piece)
            # A model can write escape sequences, which a terminal would obey.
            self.write(CONTROL.sub("", piece))

        try:
            with use_model(self.model, which):
                stream(self.model, self.tokenizer, ids, self.sampling, show)
        except KeyboardInterrupt:
            self.write(" …")
        return "".join(pieces).strip()

    def _system_turn(self) -> list[Message]:
        return [Message("system", self.system)] if self.system else []

    def _choose(self, name: str) -> None:
        if name != "base" and not self.tuned:
            self.write("there is no adapter: start with --adapter\n")
            return
        self.answering = ANSWERING[name]
        self.write("both answer\n" if name == "both" else f"{name} answers\n")

    def _save(self, path: Path) -> None:
        if not any(turn.role == "assistant" and turn.content for turn in self.turns):
            self.write("there is no answer to save yet\n")
            return
        turns = [
            {"role": turn.role, "content": turn.content}
            for turn in [*self._system_turn(), *self.turns]
        ]
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"messages": turns}, ensure_ascii=False) + "\n")
        except OSError as error:
            self.write(f"{path}: {error.strerror}\n")
            return
        self.write(f"appended to {path}\n")
