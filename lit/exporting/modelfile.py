"""An Ollama Modelfile for a merged model."""

import re

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data.sandbox import check_template
from data.template import continuation_ids
from lit.answering.generation import stop_tokens
from lora.config import ConfigError

PROMPT, SYSTEM = "lit-lora-prompt", "lit-lora-system"
"""Texts of messages that stand for Ollama's variables while the chat template is rendered."""
ACTION = re.compile(r'"|\{\{+|\{$')
"""What ends a Modelfile's value or begins an action of a Go template."""


def modelfile(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a Modelfile with the chat template and the stop tokens of training.

    Raises:
        ConfigError: A stop token cannot be written in a Modelfile.
        DataError: The template does not end.
    """
    lines = ["FROM ."]
    check_template(tokenizer)
    if tokenizer.chat_template:
        user = {"role": "user", "content": PROMPT}
        system = {"role": "system", "content": SYSTEM}
        without_system = _go_template(_render([user], tokenizer))
        with_system = _go_template(_render([system, user], tokenizer))
        lines.append(
            f'TEMPLATE """{{{{ if .System }}}}{with_system}{{{{ else }}}}{without_system}'
            '{{ end }}"""'
        )
    for token in stop_tokens(model, tokenizer):
        lines.append(f"PARAMETER stop {_quote(str(tokenizer.convert_ids_to_tokens(token)))}")
    return "\n".join(lines) + "\n"


def _quote(token: str) -> str:
    """Return a token as the value of a parameter.

    A Modelfile has no escapes: a value ends at the first line whose end is a quote.
    """
    if not token.isprintable():
        raise ConfigError(
            f"the stop token {token!r} cannot be written in a Modelfile: leave out --ollama"
        )
    return f'"""{token}"""' if '"' in token else f'"{token}"'


def _go_template(text: str) -> str:
    """Return a rendered conversation as a Go template, with Ollama's variables."""
    parts = re.split(f"({PROMPT}|{SYSTEM})", text)
    variables = {PROMPT: "{{ .Prompt }}", SYSTEM: "{{ .System }}"}
    return "".join(variables.get(part) or ACTION.sub(_literal, part) for part in parts)


def _literal(match: re.Match[str]) -> str:
    """Return an action that writes a text."""
    quoted = match[0].replace('"', r"\"")
    return f'{{{{ "{quoted}" }}}}'


def _render(messages: list[dict[str, str]], tokenizer: PreTrainedTokenizerBase) -> str:
    text = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    # Ollama adds the bos token itself.
    return text.removeprefix(tokenizer.bos_token or "") if _adds_bos(tokenizer) else text


def _adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    return continuation_ids("a", tokenizer)[0] == tokenizer.bos_token_id
