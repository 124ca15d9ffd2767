"""Read a Modelfile by the rules of Ollama's parser (parser/parser.go)."""

NAMES = (
    *("from", "license", "template", "system", "adapter", "draft", "renderer", "parser"),
    *("parameter", "message", "requires"),
)


def parse(text: str) -> list[tuple[str, str]]:
    """Return the commands of a Modelfile, each with its value.

    Raises:
        ValueError: Ollama refuses the file.
    """
    commands: list[tuple[str, str]] = []
    state, name, buffer = "nil", "", ""
    for letter in text:
        following, written = _step(state, letter)
        if following != state:
            if state == "name":
                if buffer.lower() not in NAMES:
                    raise ValueError(f"unknown command {buffer!r}")
                name = buffer.lower()
                if name == "parameter":
                    following = "parameter"
            elif state == "parameter":
                name = buffer
            elif state == "value":
                value = _unquote(buffer.strip())
                if value is None or letter in " \t":
                    buffer += letter
                    continue
                commands.append((name, value))
            buffer, state = "", following
        # Go's IsPrint keeps letters, marks, digits, punctuation, symbols and the ASCII space.
        if written.isprintable():
            buffer += written
    if state == "value":
        value = _unquote(buffer.strip())
        if value is None:
            raise ValueError("the file ends inside a value")
        commands.append((name, value))
    elif state not in ("nil", "comment"):
        raise ValueError("the file ends inside a command")
    return commands


def _step(state: str, letter: str) -> tuple[str, str]:
    """Return the next state, and what is added to the buffer."""
    space, newline = letter in " \t", letter in "\r\n"
    if state == "nil":
        if letter == "#":
            return "comment", ""
        return ("nil", "") if space or newline else ("name", letter)
    if state == "comment":
        return ("nil", "") if newline else ("comment", "")
    if state == "value":
        return ("nil", letter) if space or newline else ("value", letter)
    if state == "parameter" and (letter.isalnum() or letter == "_"):
        return "parameter", letter
    if state == "name" and letter.isalpha():
        return "name", letter
    if space:
        return "value", ""
    raise ValueError(f"{letter!r} in a name")


def _unquote(text: str) -> str | None:
    """Return a value without its quotes; None if it has not ended."""
    if text.startswith('"""'):
        return text[3:-3] if len(text) >= 6 and text.endswith('"""') else None
    if text.startswith('"'):
        return text[1:-1] if len(text) >= 2 and text.endswith('"') else None
    return text
