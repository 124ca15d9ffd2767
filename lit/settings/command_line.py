"""A command line before it is parsed, and what jsonargparse says of it."""

import re
from pathlib import Path

from lit.settings.keys import nearest


def config_files(args: list[str]) -> list[Path]:
    """Return the configuration files that a command line names."""
    followers = [*args[1:], ""]
    return [
        Path(value.partition("=")[2] if "=" in value else follower)
        for value, follower in zip(args, followers, strict=True)
        if value == "--config" or value.startswith("--config=")
    ]


def config_name(args: list[str]) -> str:
    """Return the name of a run: that of its last configuration file."""
    files = config_files(args)
    return files[-1].stem if files else "fit"


def explain_error(message: str, known: list[str]) -> str:
    """Return a message of jsonargparse in one line, with the nearest setting that exists."""
    message = " ".join(message.split())
    if found := re.search(r"unrecognized arguments: (?:--)?([\w.-]+)", message):
        return f"there is no setting {found[1]}{nearest(found[1], known)}"
    if found := re.search(r'Parser key "([\w.]+)": Expected an? (.+)\. Got value: (.*)', message):
        name, kind, value = found[1], found[2], found[3]
        if value == "None":
            return f"{name} is required"
        if choices := re.search(r"Literal\[(.+)\]", kind):
            names = choices[1].replace("'", "")
            return f"{name} is {value}; choose {names}"
        kind = re.sub(r"<class '(.+)'>", r"\1", kind)
        return f"{name} is {value}; it must be of type {kind}"
    if found := re.search(r"arguments are required: (.+)", message):
        return f"{found[1]} is required: give --{found[1]}, or set it in the config file"
    return message
