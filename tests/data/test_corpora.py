"""The data sets that ship with the project are clean."""

import re
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import pytest

from data.formats.rows import read_row, to_messages
from data.readers.source import read
from data.types import Message, Row

FOLDER = Path(__file__).parents[2] / "data" / "corpora"
CORPORA = sorted(path.name for pattern in ("*.jsonl", "*.csv") for path in FOLDER.glob(pattern))
QUESTIONS = sorted(path.name for path in FOLDER.glob("*.questions.txt"))
ROWS = {
    "printing3d.en.jsonl": 120,
    "printing3d.ru.jsonl": 100,
    "video_editing.ru.jsonl": 150,
    "electronics.ru.csv": 125,
}
GENERAL = "general.ru-en.txt"


def conversations_of(name: str) -> dict[str, list[Message]]:
    """Return every row's conversation by file:line; a bad row fails the test."""
    conversations = {}
    for row in read(FOLDER / name):
        assert isinstance(row, Row), row
        conversations[f"{name}:{row.line}"] = to_messages(row)
    return conversations


def words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.casefold()))


def lines_of(name: str) -> list[str]:
    return [line for line in (FOLDER / name).read_text(encoding="utf-8").splitlines() if line]


@pytest.mark.parametrize("name", ROWS)
def test_a_corpus_has_enough_rows(name: str) -> None:
    assert len(conversations_of(name)) >= ROWS[name]


@pytest.mark.parametrize("name", CORPORA)
def test_each_row_is_a_question_with_one_answer(name: str) -> None:
    for location, messages in conversations_of(name).items():
        assert [message.role for message in messages] == ["user", "assistant"], location


@pytest.mark.parametrize("name", CORPORA)
def test_25_rows_have_wrong_answers_in_the_language_and_about_the_length_of_the_right_one(
    name: str,
) -> None:
    rows = [read_row(row) for row in read(FOLDER / name) if isinstance(row, Row)]
    judged = [(row.messages[-1].content, row.judged.wrong) for row in rows if row.judged.wrong]
    assert len(judged) >= 25
    for right, wrong in judged:
        assert len({right, *wrong}) == 3
        for text in wrong:
            assert bool(re.search("[А-яёЁ]", right)) == bool(re.search("[А-яёЁ]", text))
            assert len(text) < 2.5 * len(right) + 80


@pytest.mark.parametrize("name", CORPORA)
def test_no_question_appears_twice(name: str) -> None:
    counts = Counter(words(messages[0].content) for messages in conversations_of(name).values())
    assert not [question for question, count in counts.items() if count > 1]


def test_no_two_rows_are_near_duplicates() -> None:
    grams: dict[str, set[tuple[str, ...]]] = {}
    for name in CORPORA:
        for location, messages in conversations_of(name).items():
            text = words(" ".join(message.content for message in messages))
            grams[location] = {text[i : i + 3] for i in range(len(text) - 2)}
    rows_with = defaultdict(list)
    for location, row_grams in grams.items():
        for gram in row_grams:
            rows_with[gram].append(location)
    shared = Counter(pair for rows in rows_with.values() for pair in combinations(rows, 2))
    similarity = {
        pair: common / (len(grams[pair[0]]) + len(grams[pair[1]]) - common)
        for pair, common in shared.items()
    }
    assert not {pair: share for pair, share in similarity.items() if share >= 0.2}


@pytest.mark.parametrize("name", QUESTIONS)
def test_no_comparison_question_is_in_a_corpus(name: str) -> None:
    known = {words(m[0].content) for corpus in CORPORA for m in conversations_of(corpus).values()}
    questions = [words(line) for line in lines_of(name)]
    assert questions
    assert not [question for question in questions if question in known]


def test_every_corpus_has_comparison_questions() -> None:
    assert [f"{Path(name).stem}.questions.txt" for name in CORPORA] == QUESTIONS


def test_the_general_text_has_english_and_russian_paragraphs() -> None:
    russian = Counter(bool(re.search("[а-яё]", line)) for line in lines_of(GENERAL))
    assert min(russian[True], russian[False]) >= 5


@pytest.mark.parametrize("name", [*CORPORA, *QUESTIONS, GENERAL])
def test_no_word_mixes_latin_and_cyrillic_letters(name: str) -> None:
    if name in CORPORA:
        texts = [m.content for messages in conversations_of(name).values() for m in messages]
    else:
        texts = lines_of(name)
    mixed = re.compile(r"\w*(?:[а-яё][a-z]|[a-z][а-яё])\w*", re.IGNORECASE)
    assert not [word for text in texts for word in mixed.findall(text)]
