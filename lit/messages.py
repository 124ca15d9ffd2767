"""The texts that this package shows, in the language of the person who reads them.

English texts stand in the code; ``locale/LANGUAGE/LC_MESSAGES`` has their translations. gettext
chooses by the environment: LANGUAGE, LC_ALL, LC_MESSAGES, LANG. Files for machines and for the hub
are English: see ``english`` and ``tr_later``.
"""

import gettext
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

DOMAIN = "lit_lora_lit"
LOCALES = Path(__file__).with_name("locale")

gettext.bindtextdomain(DOMAIN, str(LOCALES))
_ENGLISH = ContextVar("english", default=False)


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
    translated = text if _ENGLISH.get() or not text else gettext.dgettext(DOMAIN, text)
    return translated.format(**values) if values else translated


def _shown(value: object) -> object:
    return tr(value) if isinstance(value, Later) else value


def tr_n(one: str, many: str, n: int, /, **values: object) -> str:
    """Return the form of a text for ``n`` things, which is the field {n}."""
    if _ENGLISH.get():
        return (one if n == 1 else many).format(n=n, **values)
    return gettext.dngettext(DOMAIN, one, many, n).format(n=n, **values)


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
    """Make texts English in a ``with`` block: what it writes is for machines, or for the hub."""
    token = _ENGLISH.set(True)
    try:
        yield
    finally:
        _ENGLISH.reset(token)
