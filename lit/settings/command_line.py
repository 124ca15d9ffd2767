"""A command line before it is parsed, and what jsonargparse says of it."""

import re
from pathlib import Path

from lit.messages import tr
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
        return tr(
            "there is no setting {found}{nearest}", found=found[1], nearest=nearest(found[1], known)
        )
    if found := re.search(r'Parser key "([\w.]+)": Expected an? (.+)\. Got value: (.*)', message):
        name, kind, value = found[1], found[2], found[3]
        if value == "None":
            return tr("{name} is required", name=name)
        if choices := re.search(r"Literal\[(.+)\]", kind):
            names = choices[1].replace("'", "")
            return tr("{name} is {value}; choose {names}", name=name, value=value, names=names)
        kind = re.sub(r"<class '(.+)'>", r"\1", kind)
        return tr("{name} is {value}; it must be of type {kind}", name=name, value=value, kind=kind)
    if found := re.search(r"arguments are required: (.+)", message):
        return tr(
            "{found} is required: give --{found}, or set it in the config file", found=found[1]
        )
    return message
