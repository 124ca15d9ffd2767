"""An Ollama Modelfile: the chat template of training, its default system text, and the stops."""

import re

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lit.answering.generation import stop_tokens
from lit.exporting.turns import Turns, find_turns
from lit.messages import tr
from lora.config import ConfigError

ACTION = re.compile(r'"|\{\{+|\{$')
"""What ends a Modelfile's value or begins an action of a Go template."""
LAST = "eq (len (slice $.Messages $i)) 1"
"""Whether a message is the last one, in a loop over ``$.Messages``."""
NO_SYSTEM = "# The chat template of training takes no system text: this TEMPLATE leaves it out.\n"
DATE = "# The chat template of training writes the date; this TEMPLATE keeps that of its making.\n"


def modelfile(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    base: str = ".",
    adapter: str | None = None,
) -> str:
    """Return a Modelfile with the chat template and the stop tokens of training.

    Args:
        model: The model.
        tokenizer: The tokenizer of training.
        base: The model that Ollama reads: a folder or a GGUF file.
        adapter: The GGUF file of an adapter on it, or None.

    Raises:
        ConfigError: The template, its default system text or a stop token cannot be written in a
            Modelfile.
        DataError: The template does not end.
    """
    text = f"FROM {base}\n" + (f"ADAPTER {adapter}\n" if adapter else "")
    if tokenizer.chat_template:
        turns = find_turns(tokenizer)
        if turns.place == "nowhere":
            text += NO_SYSTEM
        if "strftime_now" in str(tokenizer.chat_template):
            text += DATE
        text += f'TEMPLATE """{go_template(turns)}"""\n'
        if turns.default is not None:
            text += f"SYSTEM {_long(turns.default)}\n"
    for token in stop_tokens(model, tokenizer):
        text += f"PARAMETER stop {_quote(str(tokenizer.convert_ids_to_tokens(token)))}\n"
    return text + "PARAMETER temperature 0\n"


def go_template(turns: Turns) -> str:
    """Return a Go template over Ollama's ``.System`` and ``.Messages``.

    A message list of Ollama has the system text as its first message, and ``.System`` has it too.
    An answer that is the last message is to be continued, so its turn stays open.
    """
    before, after = (_literal_text(text) for text in turns.user)
    answer, end = (_literal_text(text) for text in turns.assistant)
    head, prompt = _literal_text(turns.head), _literal_text(turns.prompt)
    start, stop = (_literal_text(text) for text in turns.system)
    shown = f"{start}{{{{ $.System }}}}{stop}"
    within = {"first": "eq $i 1", "last": LAST}.get(turns.place)
    if turns.place == "before":
        head = f"{{{{ if $.System }}}}{shown}{{{{ else }}}}{head}{{{{ end }}}}"
    elif within and turns.head != turns.system_head:
        other = _literal_text(turns.system_head)
        head = f"{{{{ if $.System }}}}{other}{{{{ else }}}}{head}{{{{ end }}}}"
    if within:
        before += f"{{{{ if $.System }}}}{{{{ if {within} }}}}{shown}{{{{ end }}}}{{{{ end }}}}"
    return (
        f"{head}{{{{ range $i, $_ := .Messages }}}}"
        f'{{{{ if eq .Role "user" }}}}{before}{{{{ .Content }}}}{after}'
        f"{{{{ if {LAST} }}}}{prompt}{{{{ end }}}}"
        f'{{{{ else if eq .Role "assistant" }}}}{answer}{{{{ .Content }}}}'
        f"{{{{ if {LAST} }}}}{{{{ else }}}}{end}{{{{ end }}}}"
        "{{ end }}{{ end }}"
    )


def _quote(token: str) -> str:
    """Return a token as the value of a parameter.

    A Modelfile has no escapes: a value ends at the first line whose end is a quote.
    """
    if not token.isprintable():
        raise ConfigError(
            tr(
                "the stop token {token!r} cannot be written in a Modelfile: leave out --ollama",
                token=token,
            )
        )
    return f'"""{token}"""' if '"' in token else f'"{token}"'


def _long(text: str) -> str:
    """Return a text of several lines as a value."""
    if '"""' in text or not all(char.isprintable() or char in "\t\n" for char in text):
        raise ConfigError(
            tr(
                "the default system text of the chat template cannot be written in a Modelfile, "
                'which has no escapes for """ and control characters: leave out --ollama'
            )
        )
    return f'"""{text}"""'


def _literal_text(text: str) -> str:
    """Return a text as part of a Go template."""
    return ACTION.sub(_literal, text)


def _literal(match: re.Match[str]) -> str:
    """Return an action that writes a text."""
    quoted = match[0].replace('"', r"\"")
    return f'{{{{ "{quoted}" }}}}'
