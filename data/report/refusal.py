"""One refusal for all problems of all files, which ends with what to type."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence

from data.messages import tr
from data.types import DataError

PLAIN = re.compile(r"[^\W\d]\w*(?: \w+)*")
"""Names that YAML takes as text without quotes."""
YAML_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


class RefusedError(DataError):
    """The rows cannot be used as they are.

    Args:
        problems: What is wrong, in lines.
        flags: Values of arguments with which the rows can be used.
    """

    def __init__(self, problems: list[str], flags: Mapping[str, str]) -> None:
        self.problems, self.flags = problems, dict(flags)
        # A command replaces an argument in backticks by what the person types for it.
        typed = " ".join(f"--`{name}` {shlex.quote(value)}" for name, value in flags.items())
        if "on_bad_row" in flags:
            how = tr("Fix these rows, or add {flags}", flags=typed)
        else:
            how = tr("Add {flags}", flags=typed)
        super().__init__("\n".join([*problems, *([how] if flags else [])]))

    def __reduce__(self) -> tuple:
        return RefusedError, (self.problems, self.flags)


def join_refusals(errors: Sequence[DataError]) -> None:
    """Raise one error for those of several sources, if there is any.

    Raises:
        DataError: There is one.
    """
    if len({str(error) for error in errors}) == 1:
        raise errors[0]
    problems: list[str] = []
    flags: dict[str, str] = {}
    for error in errors:
        if not isinstance(error, RefusedError):
            problems.append(str(error))
            continue
        problems += error.problems
        for name, value in error.flags.items():
            # Sources with different encodings.
            if flags.setdefault(name, value) != value and name == "encoding":
                flags[name] = "auto"
    if problems:
        raise RefusedError(problems, flags)


def as_flag(columns: Mapping[str, str]) -> str:
    """Return ``columns`` as a command line takes it: a mapping of YAML in one line."""
    pairs = (f"{_yaml(field)}: {_yaml(name)}" for field, name in columns.items())
    return f"{{{', '.join(pairs)}}}"


def _yaml(name: str) -> str:
    plain = PLAIN.fullmatch(name) and name.casefold() not in YAML_WORDS
    return name if plain else json.dumps(name, ensure_ascii=False)
