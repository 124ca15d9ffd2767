"""Guess which columns are question and answer where their names are unknown."""

import re
from collections.abc import Sequence

from data.formats.names import ANSWERS, OUR_FIELD, QUESTIONS, find_names, fold_name
from data.formats.refused import LABEL

NO_TEXT = {
    *("", "id", "index", "n", "no", "number", "date", "source", "url", "category", "topic", "type"),
    *("lang", "language", "score", "rating", "split", "№", "номер", "дата", "источник", "ссылка"),
    *("категория", "тема", "тип", "язык", "оценка", "автор", "author"),
}
"""Folded names of columns that are neither question nor answer."""
CONTENT = re.compile(r"[?!.:…]\s*$|\s\S+\s\S+\s\S+\s|^.{50}", re.DOTALL)
"""What a cell of text has and a column's name has not: an end mark, five words, or length."""


def guess_columns(keys: Sequence[str]) -> dict[str, str] | None:
    """Return ``columns`` for rows with unknown keys, or None if they are too few.

    The known one of the two stays; the first other columns that can hold text are taken.

    Args:
        keys: The keys of a row.
    """
    if is_headless(keys):
        return {"question": "1", "answer": "2"} if len(keys) > 1 else None
    found = find_names(keys, OUR_FIELD)
    if "text" in found and LABEL in keys:
        return {"question": found["text"], "answer": LABEL}
    asked = next((found[name] for name in QUESTIONS if name in found), None)
    said = next((found[name] for name in ANSWERS if name in found), None)
    known = {*found.values()} - {found.get("text")}
    others = [
        key
        for key in keys
        if key not in known and fold_name(key) not in NO_TEXT and not key.startswith("column ")
    ]
    wanted = (asked is None) + (said is None)
    if not wanted or len(others) < wanted:
        return None
    rest = iter(others)
    return {"question": asked or next(rest), "answer": said or next(rest)}


def is_headless(keys: Sequence[str]) -> bool:
    """Return whether the keys are content: the first record of a table without a header."""
    known = any(fold_name(key) in OUR_FIELD for key in keys)
    return not known and sum(bool(CONTENT.search(key)) for key in keys) * 2 >= len(keys)
