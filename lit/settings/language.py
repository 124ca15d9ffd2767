"""The language of a command: that of ``--lang``, else that of the locale."""

import argparse
import functools
import gettext
import locale
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from lit.messages import DOMAIN, LOCALE, VARIABLES, tr, tr_mark
from lit.run.command import run_command

FLAG = "--lang"
ABOUT = tr_mark("the language of messages, such as ru; default: that of the locale")
OF_ARGPARSE = (
    *(tr_mark("usage: "), tr_mark("options"), tr_mark("positional arguments")),
    *(tr_mark("show this help message and exit"), tr_mark("%(prog)s: error: %(message)s\n")),
    tr_mark("argument %(argument_name)s: %(message)s"),
    tr_mark("the following arguments are required: %s"),
    *(tr_mark("unrecognized arguments: %s"), tr_mark("expected one argument")),
    tr_mark("invalid choice: %(value)r (choose from %(choices)s)"),
    tr_mark("invalid %(type)s value: %(value)r"),
    tr_mark("ambiguous option: %(option)s could match %(matches)s"),
)
"""Texts of argparse, which looks their translations up by itself."""


class Main(Protocol):
    """What a command's module calls ``main``."""

    def __call__(self, args: list[str] | None = None) -> int:
        """Run the command with arguments, by default those of the command line."""


def in_language(main: Callable[[list[str]], int]) -> Main:
    """Make a command take ``--lang``; it and the processes that it starts use that language.

    Args:
        main: The command; it gets its arguments without the flag, and returns an exit code.
    """

    @functools.wraps(main)
    def command(args: list[str] | None = None) -> int:
        asked, rest = _split(sys.argv[1:] if args is None else args)
        if asked is not None and asked not in languages():
            return run_command(lambda: _refuse(asked), {})
        with _language(asked or _language_of_system()):
            return main(rest)

    return command


def languages() -> list[str]:
    """Return the languages that there are, English included."""
    return sorted({"en", *(path.name for path in Path(LOCALE).iterdir() if path.is_dir())})


class CommandParser(argparse.ArgumentParser):
    """A parser whose own words are in the person's language, and whose help has the flag.

    Args:
        kwargs: As ``ArgumentParser`` takes them.
    """

    def __init__(self, **kwargs: Any) -> None:
        with _words_of_argparse():
            super().__init__(**kwargs)
        # ``in_language`` has taken it: this line is for --help.
        self.add_argument(FLAG, choices=languages(), help=tr(ABOUT))

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does."""
        with _words_of_argparse():
            return super().parse_args(args, namespace)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does."""
        with _words_of_argparse():
            return super().parse_known_args(args, namespace)


@contextmanager
def _words_of_argparse() -> Iterator[None]:
    """Let argparse find its words in our catalog, in a ``with`` block.

    Elsewhere they stay English: jsonargparse's errors are recognized by them.
    """
    before = gettext.textdomain()
    gettext.textdomain(DOMAIN)
    try:
        yield
    finally:
        gettext.textdomain(before)


def _split(args: list[str]) -> tuple[str | None, list[str]]:
    """Return the value of the last flag, or None, and the other arguments."""
    asked, rest = None, []
    given = iter(args)
    for arg in given:
        name, equals, value = arg.partition("=")
        if name == FLAG:
            asked = value if equals else next(given, "")
        else:
            rest.append(arg)
    return asked, rest


def _refuse(asked: str) -> None:
    # Loading it takes seconds.
    from lora.config import ConfigError

    raise ConfigError(
        tr("--lang is {asked}; choose {languages}", asked=asked, languages=", ".join(languages()))
    )


def _language_of_system() -> str | None:
    """Return the system's language where no variable names one, as on Windows; else None."""
    if any(os.environ.get(name) for name in VARIABLES):
        return None
    # Windows calls them Russian_Russia, other systems ru_RU.
    name = (locale.getlocale()[0] or "").partition("_")[0]
    language = locale.normalize(name).partition("_")[0]
    return language if language in languages() else None


@contextmanager
def _language(language: str | None) -> Iterator[None]:
    """Set the language in a ``with`` block, for this process and those that it starts."""
    before = os.environ.get(VARIABLES[0])
    try:
        if language is not None:
            os.environ[VARIABLES[0]] = language
        yield
    finally:
        if before is None:
            os.environ.pop(VARIABLES[0], None)
        else:
            os.environ[VARIABLES[0]] = before
