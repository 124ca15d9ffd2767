"""A conversation with a model and, if it has an adapter, with its base; one copy of the weights."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data.formats.values import tidy
from data.template import continuation_ids, prompt_ids
from data.text import clean, replace_surrogates
from data.types import Message
from lit.answering.generation import stream, use_model
from lit.answering.sampling import Sampling
from lit.messages import tr, tr_mark
from lora.config import ConfigError
from lora.storage.files import append_line

HELP = tr_mark(
    """\
/base /tuned /both   choose who answers; with /both the tuned answer goes into the history
/reset               clear the history
/seed N              set the seed of the next answers
/system TEXT         set the system text; without TEXT, remove it
/save FILE           append the conversation to a .jsonl file, as a training row
/help /quit
Ctrl-C stops an answer. Pasted lines are one question; Alt-Enter starts a new line."""
)
ANSWERING = {"base": (tr_mark("base"),), "tuned": (tr_mark("tuned"),), "both": ("base", "tuned")}
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
        self.tuned, self.write, self.system = tuned, write, replace_surrogates(system)
        self.answering: Sequence[str] = ANSWERING["tuned" if tuned else "base"]
        self.turns: list[Message] = []

    def handle(self, text: str) -> bool:
        """Run what the person typed, a command or a question; return False to end."""
        text = replace_surrogates(text)
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
            self.write(tr("history cleared\n"))
        elif name == "seed" and argument:
            self._set_seed(argument)
        elif name == "system":
            self.system = argument
            self.write(tr("system: {argument}\n", argument=clean(argument) or tr("none")))
        elif name == "save" and argument:
            self._save(Path(argument))
        elif name == "help":
            self.write(tr(HELP) + "\n")
        else:
            self.write(tr("unknown command {said}; /help lists the commands\n", said=clean(text)))
        return True

    def ask(self, question: str) -> None:
        """Answer a question with each chosen model; the last answer goes into the history."""
        turn = Message("user", replace_surrogates(question))
        answer = ""
        for which in self.answering:
            if len(self.answering) > 1:
                self.write(f"[{tr(which)}] ")
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
            self.write(clean(piece))

        try:
            with use_model(self.model, which):
                stream(self.model, self.tokenizer, ids, self.sampling, show)
        except KeyboardInterrupt:
            self.write(" …")
        # As training takes the answers of a file.
        return tidy("".join(pieces))

    def _system_turn(self) -> list[Message]:
        return [Message("system", self.system)] if self.system else []

    def _choose(self, name: str) -> None:
        if name != "base" and not self.tuned:
            self.write(tr("there is no adapter: start with --adapter\n"))
            return
        self.answering = ANSWERING[name]
        self.write(tr("both answer\n") if name == "both" else tr("{name} answers\n", name=tr(name)))

    def _set_seed(self, text: str) -> None:
        try:
            self.sampling = replace(self.sampling, seed=int(text))
        except ConfigError as error:
            self.write(f"{error}\n".replace("--seed", tr("the seed")))
        except ValueError:
            self.write(tr("the seed is {said}; it must be a whole number\n", said=clean(text[:40])))
        else:
            self.write(tr("seed {seed}\n", seed=self.sampling.seed))

    def _save(self, path: Path) -> None:
        if not any(turn.role == "assistant" and turn.content for turn in self.turns):
            self.write(tr("there is no answer to save yet\n"))
            return
        turns = [
            {"role": turn.role, "content": turn.content}
            for turn in [*self._system_turn(), *self.turns]
        ]
        name = clean(str(path))
        row = replace_surrogates(json.dumps({"messages": turns}, ensure_ascii=False))
        try:
            if path.exists() and not path.is_file():
                # A FIFO would wait for a reader.
                self.write(tr("{name} is not a file: choose another name\n", name=name))
                return
            append_line(path, row)
        except (OSError, ValueError) as error:
            # ValueError: the name contains NUL.
            self.write(f"{name}: {getattr(error, 'strerror', None) or error}\n")
            return
        self.write(tr("appended to {name}\n", name=name))
