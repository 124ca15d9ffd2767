"""The names that fields and roles have in files, in English and Russian; case does not matter.

One table each. The first name of an entry is ours; a file may use any of them.
"""

from collections.abc import Iterable, Mapping

from data.messages import tr, tr_mark
from data.types import DataError, one_of

FIELDS = {
    "prompt": ("промпт",),
    "question": ("вопрос", "user", "human", "пользователь"),
    "instruction": ("инструкция", "задание", "задача"),
    "query": ("запрос",),
    "input": ("ввод", "вход", "входные_данные"),
    "response": ("reply", "отклик", "реакция"),
    "answer": ("ответ", "assistant", "bot", "ассистент"),
    "completion": ("продолжение",),
    "output": ("вывод", "выход", "результат"),
    "context": ("passage", "document", "контекст", "отрывок", "документ"),
    "system": (
        *("system_prompt", "system_message", "developer"),
        *("система", "системный_промпт", "системное_сообщение"),
    ),
    "history": ("chat_history", "история"),
    "messages": ("сообщения",),
    "conversations": ("conversation", "dialog", "dialogue", "диалог"),
    "text": ("текст",),
    # Not learned: answers that lit.compare measures by.
    "wrong": ("wrong_answers", "incorrect_answers", "неверные", "неверные_ответы"),
    "accepted": ("accepted_answers", "допустимые", "допустимые_ответы"),
}
QUESTIONS = ("prompt", "question", "instruction", "query", "input")
ANSWERS = ("response", "answer", "completion", "output")
HALVES = {
    "answer": (tr_mark("{keys}: there is no answer in this row: add {names}"), ANSWERS),
    "question": (tr_mark("{keys}: there is no question in this row: add {names}"), QUESTIONS),
}
"""What to say of a row that lacks one half, and the names that it could have."""
UNKNOWN_KEYS, MISSING_COLUMN = tr_mark("unknown keys"), tr_mark("missing column")
"""What a reason with this cause says, for ``tr``."""
PAIRS = (
    *(("prompt", "response"), ("question", "answer"), ("prompt", "completion")),
    *(("instruction", "output"), ("query", "response"), ("input", "output")),
)
"""Names that belong together, which come before other pairs of a question and an answer."""
TURN_FIELDS = {
    "role": ("from", "speaker", "роль", "от"),
    "content": ("value", "text", "содержание", "текст", "сообщение"),
    "reasoning_content": ("thinking", "reasoning"),
    "train": (),
    "weight": (),
}
ROLES = {
    "system": ("developer", "система", "системный"),
    "user": ("human", "prompter", "пользователь", "человек"),
    "assistant": ("gpt", "bot", "model", "ai", "chatgpt", "ассистент", "бот", "помощник", "модель"),
    # Not a turn: a text without question and answer, which is learned whole.
    "text": (),
}


def fold_name(name: str) -> str:
    """Return a name without differences of case, spaces and hyphens."""
    return "_".join(name.casefold().replace("-", " ").replace("_", " ").split()).replace("ё", "е")


def invert(table: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Return our name for each folded name of a table."""
    return {fold_name(name): ours for ours, names in table.items() for name in (ours, *names)}


OUR_FIELD, OUR_TURN_FIELD, OUR_ROLE = map(invert, (FIELDS, TURN_FIELDS, ROLES))


def find_names(keys: Iterable[object], table: Mapping[str, str]) -> dict[str, str]:
    """Return the key of a row or turn for each of our names.

    Where two keys have the same meaning, one that is spelled as ours comes first, then the first
    of the row.

    Args:
        keys: The keys of the row.
        table: Our name for each folded name.
    """
    found: dict[str, str] = {}
    for key in keys:
        ours = table.get(fold_name(key)) if isinstance(key, str) else None
        if ours is not None and (ours not in found or key == ours):
            found[ours] = str(key)
    return found


def lacking_half(found: Mapping[str, str]) -> str:
    """Return which half of a question and an answer is not among the fields, or an empty text."""
    if found.keys() & {*QUESTIONS}:
        return "answer"
    return "question" if found.keys() & {*ANSWERS} else ""


def what_lacks(keys: Iterable[str], half: str) -> str:
    """Return what to say of a row with these keys, which has only half of a pair."""
    text, names = HALVES[half]
    return tr(text, keys=", ".join(keys), names=one_of(names))


def unknown_keys(keys: str, known: str) -> str:
    """Return what to say of a row whose keys belong to no format."""
    cause = tr(UNKNOWN_KEYS)
    return tr("{keys}: {cause}; known are {known}", keys=keys, cause=cause, known=known)


def missing_column(column: str, keys: Iterable[object]) -> str:
    """Return what to say of a row that lacks a column which ``columns`` names."""
    there = ", ".join(map(str, keys))
    cause = tr(MISSING_COLUMN)
    return tr("{column}: {cause}; the row has {keys}", column=column, cause=cause, keys=there)


def check_columns(columns: Mapping[str, str]) -> None:
    """Check that ``columns`` names existing fields.

    Raises:
        DataError: It names another one.
    """
    if unknown := [name for name in columns if fold_name(name) not in OUR_FIELD]:
        raise DataError(
            tr(
                "`columns` names unknown fields: {names}. Write it as {{field: name in "
                "the file}}; the fields are {fields}",
                names=", ".join(unknown),
                fields=", ".join(FIELDS),
            )
        )
