"""The texts that this package shows, in the language of the person who reads them.

English texts stand in the code; ``locale/LANGUAGE/LC_MESSAGES`` has their translations. gettext
chooses by the environment: LANGUAGE, LC_ALL, LC_MESSAGES, LANG. Files for machines and for the hub
are English: see ``english`` and ``tr_later``.
"""

import gettext
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path

import data.messages
import lora.messages

DOMAIN = "lit_lora_lit"
LOCALE = str(Path(__file__).with_name("locale"))
VARIABLES = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")
"""What gettext reads, in its order."""

# For argparse, which looks its own words up.
gettext.bindtextdomain(DOMAIN, LOCALE)
_ENGLISH = ContextVar("english", default=False)


def language() -> str:
    """Return the language of the texts: the first one of the environment that has a catalog."""
    found = None if _ENGLISH.get() else gettext.find(DOMAIN, LOCALE)
    return Path(found).parts[-3] if found else "en"


def _catalog() -> gettext.NullTranslations:
    return _read_catalog(_ENGLISH.get(), *map(os.environ.get, VARIABLES))


@lru_cache(maxsize=8)
def _read_catalog(english: bool, *environment: str | None) -> gettext.NullTranslations:
    # Of one language: gettext takes what is not in a catalog, which is all of the English one,
    # from the languages that follow.
    return gettext.translation(DOMAIN, LOCALE, [language()], fallback=True)


class Later(str):
    """A text in English, which ``tr`` translates where it is shown."""

    text: str
    values: dict[str, object]


def tr(text: str, /, **values: object) -> str:
    """Return a text in the person's language, with values in its {fields}.

    Without values the text may have braces of its own.
    """
    if isinstance(text, Later):
        values = {name: _shown(value) for name, value in text.values.items()}
        text = text.text
    # gettext's translation of the empty text is the catalog's header.
    translated = _catalog().gettext(text) if text else text
    return translated.format(**values) if values else translated


def _shown(value: object) -> object:
    return tr(value) if isinstance(value, Later) else value


def tr_n(one: str, many: str, n: int, /, **values: object) -> str:
    """Return the form of a text for ``n`` things, which is the field {n}."""
    return _catalog().ngettext(one, many, n).format(n=n, **values)


def tr_mark(text: str) -> str:
    """Return the text as it is: a table's constant that ``tr`` translates where it is shown."""
    return text


def tr_later(text: str, /, **values: object) -> str:
    """Return a text in English, for a file, that ``tr`` translates where it is shown."""
    later = Later(text.format(**values) if values else text)
    later.text, later.values = text, values
    return later


@contextmanager
def english() -> Iterator[None]:
    """Make texts English in a ``with`` block, those of ``lora`` and ``data`` too.

    What the block writes is for machines, or for the hub.
    """
    switches = (_ENGLISH, data.messages.ENGLISH, lora.messages.ENGLISH)
    tokens = [switch.set(True) for switch in switches]
    try:
        yield
    finally:
        for switch, token in zip(switches, tokens, strict=True):
            switch.reset(token)
