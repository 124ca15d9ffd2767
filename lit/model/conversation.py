"""A conversation with a model and, with an adapter, with its base; one copy of the weights."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data.template import continuation_ids, prompt_ids
from data.types import Message
from lit.model.generation import Sampling, stream, use_model

HELP = """\
/base /tuned /both   who answers from now on; with /both the tuned answer goes into the history
/reset               forget the conversation
/seed N              the seed of the next answers
/system TEXT         what the model is told first; empty for nothing
/save FILE           add the conversation to a .jsonl file, as a training row
/help /quit
Ctrl-C stops an answer. Pasted lines are one question; Alt-Enter begins a new line."""
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
ANSWERING = {"base": ("base",), "tuned": ("tuned",), "both": ("base", "tuned")}


class Conversation:
    """The turns so far, and who answers the next.

    Args:
        model: With an adapter or without, in eval mode.
        tokenizer: With the template; without one, the bare text of a question is continued.
        sampling: How tokens are drawn.
        tuned: Whether the model has an adapter.
        write: Shows text.
        system: What the model is told first.
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

    def say(self, text: str) -> bool:
        """Take what the user typed: a command, or a question. False ends the conversation."""
        if not text.startswith("/"):
            self.ask(text)
            return True
        name, _, rest = text[1:].partition(" ")
        rest = rest.strip()
        if name == "quit":
            return False
        if name in ANSWERING:
            self._choose(name)
        elif name == "reset":
            self.turns = []
            self.write("forgotten\n")
        elif name == "seed" and rest.isdigit():
            self.sampling = replace(self.sampling, seed=int(rest))
            self.write(f"seed {rest}\n")
        elif name == "system":
            self.system = rest
            self.write(f"system: {rest or 'nothing'}\n")
        elif name == "save" and rest:
            self._save(Path(rest))
        elif name == "help":
            self.write(HELP + "\n")
        else:
            self.write(f"no command {text}; /help lists them\n")
        return True

    def ask(self, question: str) -> None:
        """Answer a question with each which; the last one's answer goes into the history."""
        asked = Message("user", question)
        text = ""
        for which in self.answering:
            if len(self.answering) > 1:
                self.write(f"[{which}] ")
            text = self._answer(which, [*self._told(), *self.turns, asked])
            self.write("\n")
        self.turns += [asked, Message("assistant", text)]

    def _answer(self, which: str, history: list[Message]) -> str:
        if self.tokenizer.chat_template:
            ids = prompt_ids(history, self.tokenizer)
        else:
            ids = continuation_ids(history[-1].content, self.tokenizer)
        pieces: list[str] = []

        def show(piece: str) -> None:
            pieces.append(piece)
            # A model can write escape sequences; a terminal would obey them.
            self.write(CONTROL.sub("", piece))

        try:
            with use_model(self.model, which):
                stream(self.model, self.tokenizer, ids, self.sampling, show)
        except KeyboardInterrupt:
            self.write(" …")
        return "".join(pieces).strip()

    def _told(self) -> list[Message]:
        return [Message("system", self.system)] if self.system else []

    def _choose(self, name: str) -> None:
        if name != "base" and not self.tuned:
            self.write("there is no adapter: start with --adapter\n")
            return
        self.answering = ANSWERING[name]
        self.write(f"{name} answers\n")

    def _save(self, path: Path) -> None:
        if not any(turn.role == "assistant" and turn.content for turn in self.turns):
            self.write("there is no answer to save yet\n")
            return
        turns = [{"role": t.role, "content": t.content} for t in [*self._told(), *self.turns]]
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"messages": turns}, ensure_ascii=False) + "\n")
        except OSError as error:
            self.write(f"{path}: {error.strerror}\n")
            return
        self.write(f"added to {path}\n")
