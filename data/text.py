"""Texts of strangers: a model, a data file or an adapter's settings may contain any character."""

import re
import unicodedata

UNSAFE = re.compile(
    # Control characters except tab and newline; a terminal obeys many of them.
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"
    # Marks, embeddings and isolates of direction: they show text in another order than it has.
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
    # Separators of lines, annotations, and characters that no font draws.
    "\u2028\u2029\ufff9-\ufffb\U000e0000-\U000e007f]"
)
SURROGATE = re.compile("[\ud800-\udfff]")

# An underscore inside a word, as in snake_case, is no emphasis.
MARKUP = re.compile(r"[\\`*\[\]<>|#&~]|(?<![^\W_])_|_(?![^\W_])")
"""What means something in Markdown wherever it is; in HTML and in tables too."""


def clean(text: str) -> str:
    """Remove what a terminal or a browser would obey instead of show.

    Every place that shows a stranger's text calls it: the terminal, HTML, Markdown and pictures.
    Tabs and newlines stay.
    """
    return UNSAFE.sub("", replace_surrogates(text))


def replace_surrogates(text: str) -> str:
    """Replace surrogates, which no encoding of Unicode can write, by U+FFFD."""
    return SURROGATE.sub("\ufffd", text)


def escape_markdown(text: str) -> str:
    """Escape a text for one line of Markdown: a paragraph, a heading or a cell of a table."""
    text = MARKUP.sub(r"\\\g<0>", clean(text).strip())
    # GitHub turns bare addresses into links.
    text = re.sub(r"(?=://)|(?<=\bwww)(?=\.)", r"\\", text)
    lines = text.splitlines()
    # These start a list, a rule or a heading; only the first line starts a line of the file.
    lines[:1] = [re.sub(r"^(\d{0,9})([-+=.)])", r"\1\\\2", line) for line in lines[:1]]
    return "<br>".join(lines)


def normalize(text: str) -> str:
    """Return a text in the Unicode normal form NFC: one encoding for each letter with its accents.

    Not NFKC, which also makes characters of other meaning equal, such as x² and x2.
    """
    return unicodedata.normalize("NFC", text)


def fold(text: str) -> str:
    """Return a text without differences of case, in NFC, which folding alone can leave."""
    return normalize(normalize(text).casefold())
