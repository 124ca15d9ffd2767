"""Render a Go template by the rules of text/template, for the subset that Modelfiles here use.

Written from Go's documentation, and independent of what writes the templates: actions, trim
markers, ``range`` with an index, ``if`` / ``else if`` / ``else``, ``eq``, ``len``, ``slice``,
variables, fields and quoted strings.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|\(|\)|:=|,|[^\s(),"]+')


def render(template: str, data: dict[str, Any]) -> str:
    """Return what Go writes for a template and its data.

    Raises:
        ValueError: The template does not parse.
    """
    pieces = list(_pieces(template))
    nodes, rest, end = _parse(pieces, 0)
    if end is not None or rest != len(pieces):
        raise ValueError(f"unexpected {end}")
    return "".join(_execute(nodes, data, {"$": data}))


def _pieces(template: str) -> Iterator[tuple[str, str]]:
    """Yield texts and actions; trim markers cut the white space of neighboring texts."""
    trim = False
    while template:
        text, opened, template = template.partition("{{")
        left = bool(opened) and template[:1] == "-" and template[1:2].isspace()
        text = text.lstrip(" \t\r\n") if trim else text
        yield "text", text.rstrip(" \t\r\n") if left else text
        if not opened:
            return
        found = re.match(r'(?:"(?:\\.|[^"\\\n])*"|[^"])*?\}\}', template)
        if not found:
            raise ValueError("unclosed action")
        action, template = found[0][:-2], template[found.end() :]
        trim = len(action) > 1 and action[-1] == "-" and action[-2].isspace()
        yield "action", action[1 if left else 0 : -1 if trim else None].strip()


def _parse(pieces: list[tuple[str, str]], at: int) -> tuple[list[Any], int, str | None]:
    """Return nodes until an end or else, the next place, and the action that ended them."""
    nodes: list[Any] = []
    while at < len(pieces):
        kind, text = pieces[at]
        at += 1
        word = text.split(" ")[0] if kind == "action" else ""
        if kind == "text":
            nodes.append(("text", text))
        elif word == "end" or word == "else":
            return nodes, at, text
        elif word in ("if", "range"):
            node, at = _block(word, text[len(word) :], pieces, at)
            nodes.append(node)
        else:
            nodes.append(("write", TOKEN.findall(text)))
    return nodes, at, None


def _block(word: str, head: str, pieces: list[tuple[str, str]], at: int) -> tuple[Any, int]:
    body, at, end = _parse(pieces, at)
    other: list[Any] = []
    if end is not None and end.startswith("else if "):
        node, at = _block("if", end.removeprefix("else if"), pieces, at)
        return (word, TOKEN.findall(head), body, [node]), at
    if end == "else":
        other, at, end = _parse(pieces, at)
    if end != "end":
        raise ValueError(f"{word} has no end")
    return (word, TOKEN.findall(head), body, other), at


def _execute(nodes: list[Any], dot: Any, variables: dict[str, Any]) -> Iterator[str]:
    for node in nodes:
        if node[0] == "text":
            yield node[1]
        elif node[0] == "write":
            yield str(_value(node[1], dot, variables))
        elif node[0] == "if":
            # Zero values of Go are false: 0, "", nil and empty slices.
            yield from _execute(node[2 if _value(node[1], dot, variables) else 3], dot, variables)
        else:
            index, comma, name, assign, *source = node[1]
            if (comma, assign) != (",", ":="):
                raise ValueError("range without two variables")
            for i, item in enumerate(_value(source, dot, variables)):
                yield from _execute(node[2], item, variables | {index: i, name: item})


def _value(tokens: list[str], dot: Any, variables: dict[str, Any]) -> Any:
    words = [*tokens]
    value = _call(words, dot, variables)
    if words:
        raise ValueError(f"unexpected {words}")
    return value


def _call(words: list[str], dot: Any, variables: dict[str, Any]) -> Any:
    function = words[0]
    if function not in ("eq", "len", "slice"):
        return _operand(words, dot, variables)
    words.pop(0)
    arguments = []
    while words and words[0] != ")":
        arguments.append(_operand(words, dot, variables))
    if function == "eq":
        return arguments[0] == arguments[1]
    return len(arguments[0]) if function == "len" else arguments[0][arguments[1] :]


def _operand(words: list[str], dot: Any, variables: dict[str, Any]) -> Any:
    word = words.pop(0)
    if word == "(":
        value = _call(words, dot, variables)
        if not words or words.pop(0) != ")":
            raise ValueError("a parenthesis is not closed")
        return value
    if word.startswith('"'):
        return json.loads(word)
    if word.isdecimal():
        return int(word)
    name, *fields = word.split(".")
    value = variables[name] if name.startswith("$") else dot
    if name and not name.startswith("$"):
        raise ValueError(f"function {name} is not defined")
    for field in filter(None, fields):
        value = value[field]
    return value
