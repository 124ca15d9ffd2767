"""Values for the variables of a chat template, such as ``enable_thinking``.

They are written into the template itself, as its first lines: so chat, compare, a merged model and
every other tool that reads the adapter's template writes prompts as training did. Whoever renders
it may still pass another value.
"""

import json
import math
import re
from collections.abc import Mapping

import jinja2
import jinja2.meta
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from transformers import PreTrainedTokenizerBase

from data.messages import tr
from data.types import DataError

Value = bool | int | float | str | None
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LINE = re.compile(r"\{% if (\w+) is not defined %\}\{% set \1 = (.*) %\}\{% endif %\}\n")
START = re.compile(
    r"(?:\{\{ bos_token \}\}|\{% if \w+ is not defined %\}\{% set \w+ = .* %\}\{% endif %\}\n)*"
)
"""What this package writes before a template."""
WRITTEN = {"true": True, "false": False, "none": None}
GIVEN = {
    *("messages", "tools", "documents", "add_generation_prompt", "continue_final_message"),
    *("raise_exception", "strftime_now", "range", "dict", "lipsum", "cycler", "joiner"),
    *("namespace", "loop", "self", "super", "caller", "varargs", "kwargs"),
    *("not", "and", "or", "in", "is", "if", "else", "true", "false", "none", "True", "False"),
    *("None", "for", "set", "macro", "call", "filter", "block", "import", "include", "extends"),
}
"""Names that have a value in every rendering, or that Jinja reserves."""


def add_values(tokenizer: PreTrainedTokenizerBase, values: Mapping[str, Value]) -> None:
    """Give variables of the tokenizer's template a value; one of before is replaced.

    Args:
        tokenizer: Changed in place.
        values: Values by name.

    Raises:
        DataError: A name or a value cannot be written.
    """
    lines = [_line(name, value, tokenizer) for name, value in values.items()]
    if lines:
        # The first value counts: the template defines a variable only where it has none.
        tokenizer.chat_template = "".join(lines) + str(tokenizer.get_chat_template())


def read_values(tokenizer: PreTrainedTokenizerBase) -> dict[str, Value]:
    """Return the values that ``add_values`` has written into the tokenizer's template."""
    template = tokenizer.chat_template
    return values_in(template) if isinstance(template, str) else {}


def values_in(template: str) -> dict[str, Value]:
    """Return the values that ``add_values`` has written into a template."""
    values: dict[str, Value] = {}
    for name, text in LINE.findall(_start(template)):
        if name not in values:
            values[name] = WRITTEN[text] if text in WRITTEN else json.loads(text)
    return values


def _start(template: str) -> str:
    start = START.match(template)
    return start[0] if start else ""


def unread(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a sentence on values that the tokenizer's template does not read, or an empty text."""
    values = read_values(tokenizer)
    template = str(tokenizer.chat_template)
    looked_up, own = variables(template.removeprefix(_start(template)))
    given = GIVEN | {*tokenizer.special_tokens_map}
    if not (ignored := [name for name in values if name not in looked_up - given]):
        return ""
    names, others = ", ".join(ignored), ", ".join(sorted(looked_up - own - given))
    if not others:
        return tr(
            "the template does not read {names}, so it changes nothing; it reads no variable",
            names=names,
        )
    return tr(
        "the template does not read {names}, so it changes nothing; it reads {others}",
        names=names,
        others=others,
    )


def shown(values: Mapping[str, Value]) -> str:
    """Return values as a person types them: ``{enable_thinking: false}``."""
    pairs = (f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in values.items())
    return f"{{{', '.join(pairs)}}}"


def variables(template: str) -> tuple[set[str], set[str]]:
    """Return the names that a template looks up, and those of them that seem its own.

    Its own are names that it sets somewhere, and of which it never asks whether they are defined.
    """
    environment = jinja2.Environment(extensions=[_Generation, "jinja2.ext.loopcontrols"])
    try:
        tree = environment.parse(template)
    except jinja2.TemplateSyntaxError:
        return set(), set()  # whoever renders it reports it
    asked = {
        test.node.name
        for test in tree.find_all(nodes.Test)
        if test.name in ("defined", "undefined") and isinstance(test.node, nodes.Name)
    }
    written = {name.name for name in tree.find_all(nodes.Name) if name.ctx == "store"}
    return jinja2.meta.find_undeclared_variables(tree), written - asked


class _Generation(Extension):
    """The tag ``generation`` of transformers, which marks answers."""

    tags = {"generation"}  # noqa: RUF012  as jinja2 declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return what is between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _line(name: str, value: Value, tokenizer: PreTrainedTokenizerBase) -> str:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise DataError(
            tr("`template_kwargs` has the name {name!r}: it must be a name of letters", name=name)
        )
    if name in GIVEN or name in tokenizer.special_tokens_map:
        raise DataError(
            tr("`template_kwargs` has {name}, which every rendering sets itself", name=name)
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(
            tr(
                "`template_kwargs` has {name}: {value}, which is no finite number",
                name=name,
                value=value,
            )
        )
    if not isinstance(value, bool | int | float | str | None):
        raise DataError(
            tr(
                "`template_kwargs` has {name}: {value!r}; values are text, numbers, true, "
                "false, null",
                name=name,
                value=value,
            )
        )
    text = "none" if value is None else json.dumps(value, ensure_ascii=False)
    return f"{{% if {name} is not defined %}}{{% set {name} = {text} %}}{{% endif %}}\n"
