"""B7, B8, B9: what becomes of rows that are long, alike, without a question, or damaged on disk."""

import json
import os
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from data.planning.batch import collate
from data.records import content_hash, question_hash
from data.splitting.near_duplicates import find_near_duplicates
from data.splitting.split import split_by_group, split_train_val
from data.store import build_store
from data.template import encode
from data.truncation import MIN_PROMPT
from data.types import IGNORE, DataError, Example, Message, RowError, TooLongError

LONG = " ".join(f"word {i}" for i in range(60))
HEADED = (
    "{% for m in messages %}### {{ m['role'] }}:\n{{ m['content'] | trim }}\n"
    "{% if m['role'] == 'assistant' %}<|im_end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}### assistant:\n{% endif %}"
)
IN_ONE = (
    "{% if messages[0]['role'] == 'system' %}<<SYS>>{{ messages[0]['content'] }}<</SYS>> "
    "{% set messages = messages[1:] %}{% endif %}{% for m in messages %}"
    "{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]{% else %}{{ m['content'] }}"
    "<|im_end|>{% endif %}{% endfor %}"
)
PLAIN = "{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}"
TEMPLATES = {
    "chatml": None,
    "headers of ordinary text": HEADED,
    "two in one": IN_ONE,
    "plain": PLAIN,
}
ANSWER = Message("assistant", "Enough.")
CONVERSATIONS = {
    "B7: a long system and user text": [Message("system", LONG), Message("user", LONG), ANSWER],
    "B7: a long question": [Message("system", "Brief."), Message("user", LONG), ANSWER],
    "B7: a long system text": [Message("system", LONG), Message("user", "Why?"), ANSWER],
    "B7: control tokens in a text": [Message("user", f"<pad> {LONG} <pad>"), ANSWER],
    "B7: an untrained answer before": [
        *(Message("user", "Why?"), Message("assistant", LONG, train=False)),
        *(Message("user", LONG), ANSWER),
    ],
}


def with_template(tokenizer: PreTrainedTokenizerFast, name: str) -> PreTrainedTokenizerFast:
    tokenizer.chat_template = TEMPLATES[name] or tokenizer.chat_template
    return tokenizer


def shared(text: str, other: str) -> int:
    """Return how many characters two texts begin with alike."""
    return next((i for i, pair in enumerate(zip(text, other)) if pair[0] != pair[1]), len(other))  # noqa: B905


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS)
@pytest.mark.parametrize("cut", [1, 50, 150])
def test_a_cut_row_is_its_template_with_each_text_cut_in_its_middle(
    cut: int, messages: list[Message], template: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    tokenizer = with_template(tokenizer, template)
    whole = encode(messages, tokenizer)
    short = encode(messages, tokenizer, len(whole.ids) - cut)
    assert (short.cut, len(short.ids)) == (cut, len(whole.ids) - cut)
    turns = [{"role": m.role, "content": f"\0{i}\0"} for i, m in enumerate(messages)]
    borders = tokenizer.apply_chat_template(turns, tokenize=False).split("\0")[::2]
    # Tokens after the last label are dropped.
    borders[-1] = borders[-1].partition("<|im_end|>")[0] + "<|im_end|>"
    pattern = "(.*?)".join(map(re.escape, borders))
    found = re.fullmatch(pattern, tokenizer.decode(short.ids), re.DOTALL)
    assert found, "the template's own text is not whole"
    for message, kept in zip(messages, found.groups(), strict=True):
        head, tail = shared(message.content, kept), shared(message.content[::-1], kept[::-1])
        assert head + tail >= len(kept)
        assert kept == message.content or min(head, tail) >= MIN_PROMPT // 2
    special = set(tokenizer.all_special_ids)
    assert [i for i in short.ids if i in special] == [i for i in whole.ids if i in special]


def test_a_turn_that_would_be_cut_to_almost_nothing_is_left_out(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    messages = CONVERSATIONS["B7: a long question"]
    length = len(encode(messages, tokenizer).ids)
    question = len(tokenizer(LONG, add_special_tokens=False)["input_ids"])
    assert encode(messages, tokenizer, length - question + MIN_PROMPT).cut
    with pytest.raises(TooLongError, match="too short to cut"):
        encode(messages, tokenizer, length - question + MIN_PROMPT - 1)


def chain(links: int) -> list[list[Message]]:
    """Rows of which each shares most of its text with the next, and little with those beyond."""
    words = [f"{n * 7919 % 99991:05d}" for n in range(5 * links + 40)]
    texts = [" ".join(words[5 * link : 5 * link + 40]) for link in range(links)]
    return [[Message("user", "Which?"), Message("assistant", text)] for text in texts]


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [0, 2, 1, 3], [3, 0, 2, 1], [0, 3, 1, 2]])
def test_b8_a_chain_of_near_duplicates_is_one_group_in_any_order(order: list[int]) -> None:
    rows = chain(4)
    ends = [rows[0], rows[3]]
    assert len(set(find_near_duplicates(ends, 0.6).tolist())) == 2
    groups = find_near_duplicates([rows[i] for i in order], 0.6)
    assert set(groups.tolist()) == {0}


def test_b8_rows_between_two_groups_join_them() -> None:
    rows = chain(5)
    other = [Message("user", "Wood?"), Message("assistant", "A sharper chisel needs less force.")]
    groups = find_near_duplicates([rows[0], rows[4], other, rows[1], rows[3], rows[2]], 0.6)
    assert groups.tolist() == [0, 0, 2, 0, 0, 0]


SAME = {
    "B8: composed and decomposed": (
        "Где ёлка, café?",
        unicodedata.normalize("NFD", "Где ёлка, café?"),
    ),
    "B8: Hangul": ("한국어?", unicodedata.normalize("NFD", "한국어?")),
    "B8: the Angstrom sign": ("5 \u212b?", "5 \u00c5?"),
}


@pytest.mark.parametrize(("one", "two"), SAME.values(), ids=SAME)
def test_b8_unicode_forms_of_one_text_are_equal(one: str, two: str) -> None:
    pair = [[Message("user", text), Message("assistant", text)] for text in (one, two)]
    assert (
        len({content_hash(row) for row in pair}) == len({question_hash(row) for row in pair}) == 1
    )
    assert set(find_near_duplicates(pair, 0.9).tolist()) == {0}


@pytest.mark.parametrize(("one", "two"), [("x²?", "x2?"), ("Ⅳ", "IV"), ("ﬁne", "f ine")])
def test_b8_characters_of_other_meaning_stay_apart(one: str, two: str) -> None:
    pair = [[Message("user", text), Message("assistant", "So.")] for text in (one, two)]
    assert len({content_hash(row) for row in pair}) == 2


def test_b8_case_folds_across_unicode_forms() -> None:
    upper = unicodedata.normalize("NFD", "Ёлка, ΐ, STRASSE?")
    pair = [[Message("user", text), ANSWER] for text in (upper, "ёлка, ΐ, straße?")]
    assert len({question_hash(row) for row in pair}) == 1


GROUP_SIZES = {
    "B8: one group of 700": ([700, *[1] * 300], 0.1, 100),
    "B8: a large group and a middle one": ([700, 90, *[1] * 210], 0.1, 100),
    "B8: groups that just do not fit": ([60, 60, 60, *[1] * 320], 0.2, 100),
    "B8: single rows": ([1] * 40, 0.25, 10),
    "B8: every group is larger": ([10, 20, 5, 5], 0.1, 5),
    "B8: two groups": ([700, 300], 0.1, 300),
}


@pytest.mark.parametrize(("sizes", "share", "held_out"), GROUP_SIZES.values(), ids=GROUP_SIZES)
@pytest.mark.parametrize("seed", range(5))
def test_b8_a_large_group_is_not_held_out(
    seed: int, sizes: list[int], share: float, held_out: int
) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    train, val = split_by_group(groups, share, seed)
    assert not set(groups[train]) & set(groups[val])
    assert len(val) == held_out
    assert len(train) + len(val) == sum(sizes)


def test_b8_a_share_that_is_not_met_is_said(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    notes = []
    for questions in (4, 40):
        path = tmp_path / f"{questions}.jsonl"
        rows = [{"prompt": f"Why {i % questions}?", "response": f"So {i}."} for i in range(40)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        store = build_store(path, tokenizer, max_length=99, cache=tmp_path / "cache")
        notes.append(split_train_val(store, None, val_fraction=0.1, seed=1).share_note)
    assert notes == ["10 rows are held out, not 4: rows that belong together stay together", ""]


NOTHING_BEFORE = {
    "B9: no question": "{% for m in messages if m['role'] == 'assistant' %}{{ m['content'] }}"
    "<|im_end|>{% endfor %}",
    "B9: the answer first": "{% for m in messages | reverse %}{{ m['content'] }}<|im_end|>"
    "{% endfor %}",
}


@pytest.mark.parametrize("name", NOTHING_BEFORE)
def test_b9_a_rows_first_token_is_never_a_label(
    name: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    tokenizer.chat_template = NOTHING_BEFORE[name]
    with pytest.raises(RowError, match=r"turn \d: the template"):
        encode([Message("user", "Why?"), ANSWER], tokenizer)


def test_b9_a_batch_with_a_label_on_a_first_token_is_refused() -> None:
    with pytest.raises(DataError, match="first token has a label"):
        collate([Example([5, 6], [IGNORE, 6]), Example([5, 6], [5, 6])])


MADE_AGAIN = "the cached tokens were damaged and made again"


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 4
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "B9: a bit of the tokens": lambda folder: flip(folder / "rows.arrow", -3000),
    "B9: a bit of the lengths": lambda folder: flip(folder / "index.arrow", 700),
    "B9: a bit of the report": lambda folder: flip(folder / "row_report.json", 20),
    "B9: a bit of the checksums": lambda folder: flip(folder / "checksums.json", 5),
    "B9: cut": lambda folder: os.truncate(folder / "rows.arrow", 999),
    "B9: empty": lambda folder: os.truncate(folder / "index.arrow", 0),
    "B9: a file is gone": lambda folder: (folder / "issues.arrow").unlink(),
    "B9: written before checksums were": lambda folder: (folder / "checksums.json").unlink(),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_b9_a_damaged_token_cache_is_found_and_made_again(
    name: str, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("question,answer\n" + "".join(f"Why {i}?,So {i}.\n" for i in range(60)))
    cache = tmp_path / "cache"
    before = build_store(path, tokenizer, max_length=99, cache=cache)
    expected = before.table.to_list()
    assert MADE_AGAIN not in str(before.report)
    (folder,) = (entry for entry in cache.iterdir() if entry.is_dir())
    del before
    DAMAGE[name](folder)
    for note in (True, False):
        store = build_store(path, tokenizer, max_length=99, cache=cache)
        assert store.table.to_list() == expected
        assert (MADE_AGAIN in str(store.report)) == note
