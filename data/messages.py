"""The texts that this package shows, in the language of the person who reads them.

English texts stand in the code; ``locale/LANGUAGE/LC_MESSAGES`` has their translations. gettext
chooses by the environment: LANGUAGE, LC_ALL, LC_MESSAGES, LANG.
"""

import gettext
from pathlib import Path

DOMAIN = "lit_lora_data"
LOCALE = str(Path(__file__).with_name("locale"))

gettext.bindtextdomain(DOMAIN, LOCALE)


def language() -> str:
    """Return the language of the texts: that of the catalog which gettext chooses, or ``en``."""
    found = gettext.find(DOMAIN, LOCALE)
    return Path(found).parts[-3] if found else "en"


def tr(text: str, /, **values: object) -> str:
    """Return a text in the person's language, with values in its {fields}.

    Without values the text may have braces of its own.
    """
    translated = gettext.dgettext(DOMAIN, text)
    return translated.format(**values) if values else translated


def tr_n(one: str, many: str, n: int, /, **values: object) -> str:
    """Return the form of a text for ``n`` things, which is the field {n}."""
    return gettext.dngettext(DOMAIN, one, many, n).format(n=n, **values)


def tr_mark(text: str) -> str:
    """Return the text as it is: a table's constant that ``tr`` translates where it is shown."""
    return text
