"""How an answer behaves, whatever it says."""

import unicodedata
from collections import Counter

from data.formats.values import is_blank
from lit.measures.written import normalize


def repetition(text: str) -> float:
    """Return the share of an answer's 4-grams of words that occurred before in it, 0 to 1."""
    words = normalize(text)
    grams = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def length_difference(text: str, reference: str) -> float:
    """Return how far an answer's length is from its reference's, 0 (equal) to 1 (one is empty)."""
    lengths = len(text), len(reference)
    return 1 - min(lengths) / max(lengths) if max(lengths) else 0.0


def script(text: str) -> str:
    """Return the script of most letters of a text, such as LATIN; empty without letters."""
    names = (unicodedata.name(letter, "") for letter in text if letter.isalpha())
    scripts = Counter(name.split()[0] for name in names if name)
    return scripts.most_common(1)[0][0] if scripts else ""


def other_script(text: str, reference: str) -> float:
    """Return 1 if an answer has letters, and most are of another script than its reference's."""
    own, expected = script(text), script(reference)
    return float(bool(own and expected) and own != expected)


def is_empty(text: str) -> float:
    """Return 1 for an answer without a visible character."""
    return float(is_blank(text))
