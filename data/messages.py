"""The texts that this package shows, in the language of the person who reads them.

English texts stand in the code; ``locale/LANGUAGE/LC_MESSAGES`` has their translations. gettext
chooses by the environment: LANGUAGE, LC_ALL, LC_MESSAGES, LANG.
"""

import gettext
import os
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path

DOMAIN = "lit_lora_data"
LOCALE = str(Path(__file__).with_name("locale"))
VARIABLES = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")
ENGLISH = ContextVar("english", default=False)
"""Whether texts are English whatever the environment says, as where a program reads them."""


def language() -> str:
    """Return the language of the texts: the first one of the environment that has a catalog."""
    found = None if ENGLISH.get() else gettext.find(DOMAIN, LOCALE)
    return Path(found).parts[-3] if found else "en"


def _catalog() -> gettext.NullTranslations:
    return _read_catalog(ENGLISH.get(), *map(os.environ.get, VARIABLES))


@lru_cache(maxsize=8)
def _read_catalog(english: bool, *environment: str | None) -> gettext.NullTranslations:
    # Of one language: gettext takes what is not in a catalog, which is all of the English one,
    # from the languages that follow.
    return gettext.translation(DOMAIN, LOCALE, [language()], fallback=True)


def tr(text: str, /, **values: object) -> str:
    """Return a text in the person's language, with values in its {fields}.

    Without values the text may have braces of its own.
    """
    translated = _catalog().gettext(text)
    return translated.format(**values) if values else translated


def tr_n(one: str, many: str, n: int, /, **values: object) -> str:
    """Return the form of a text for ``n`` things, which is the field {n}."""
    return _catalog().ngettext(one, many, n).format(n=n, **values)


def tr_mark(text: str) -> str:
    """Return the text as it is: a table's constant that ``tr`` translates where it is shown."""
    return text
