"""How near an answer is to a reference, by its text alone. Every function returns 0 to 1."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import SupportsFloat, cast

SHORT_WORDS = 6
"""Words that a reference may have for an exact match to mean something."""
KEPT = "%#&@*/\\"
"""Signs that Unicode calls punctuation, and that change what an answer says: C and C#."""
COMMAS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])")
SPACES = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:[\u00a0\u202f]\d{3})+(?!\d)")
CYRILLIC_SPACES = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:[ \u00a0\u202f]\d{3})+(?!\d)")
"""Groups of thousands. A comma between digits is a decimal comma in a text of Cyrillic letters."""
CYRILLIC = re.compile("[\u0400-\u04ff]")
NUMBER = re.compile(r"(?<![\w.])[-\u2212]?\d+(?:[.,]\d+)?(?!\d)")


def normalize(text: str) -> list[str]:
    """Return an answer as words, without case, punctuation and the form of its numbers.

    3.0 is 3, 0,5 is 0.5, 1,000 is 1000 and 5mm is 5 mm; a minus before a number stays. The Russian
    letters ё and е are one: most texts write е for both.
    """
    for groups in (CYRILLIC_SPACES,) if CYRILLIC.search(text) else (COMMAS, SPACES):
        text = groups.sub(_without_groups, text)
    text = unicodedata.normalize("NFKC", text).casefold().replace("ё", "е")
    words, end = [], 0
    for found in NUMBER.finditer(text):
        words += [*_words(text[end : found.start()]), _number(found[0])]
        end = found.end()
    return words + _words(text[end:])


def _without_groups(found: re.Match[str]) -> str:
    return re.sub(r"\D", "", found[0])


def _number(text: str) -> str:
    try:
        value = Decimal(text.replace(",", ".").replace("\u2212", "-"))
    except InvalidOperation:  # digits of a script that has no decimal value
        return text
    return format(value.normalize() + 0, "f")


def _words(text: str) -> list[str]:
    kept = (
        character
        if character in KEPT or not unicodedata.category(character).startswith("P")
        else " "
        for character in text
    )
    return "".join(kept).split()


def exact_match(answer: str, references: Sequence[str]) -> float:
    """Return 1 if an answer equals one of the references after ``normalize``."""
    words = normalize(answer)
    return float(any(words == normalize(reference) for reference in references))


def token_f1(answer: str, references: Sequence[str]) -> float:
    """Return the F1 of the normalized words that an answer shares with the nearest reference."""
    return max(_f1(normalize(answer), normalize(reference)) for reference in references)


def _f1(words: list[str], expected: list[str]) -> float:
    if not words or not expected:
        return float(words == expected)
    return 2 * (Counter(words) & Counter(expected)).total() / (len(words) + len(expected))


def chrf(answer: str, references: Sequence[str]) -> float:
    """Return the F-score of shared character n-grams, as a share, of the nearest reference."""
    # It imports pictures and more, which takes a second.
    from torchmetrics.text import CHRFScore

    score = CHRFScore(n_word_order=0)
    # To call the metric would count everything twice.
    score.update([answer], [list(references)])
    return float(cast(SupportsFloat, score.compute()))


def is_json(text: str) -> float:
    """Return 1 for a JSON object or list."""
    try:
        return float(isinstance(json.loads(text), dict | list))
    except (ValueError, RecursionError):
        return 0.0


def is_short(references: Sequence[str]) -> bool:
    """Return whether every reference is short enough for an exact match."""
    return all(len(normalize(reference)) <= SHORT_WORDS for reference in references)
