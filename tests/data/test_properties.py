"""Properties that hold for any text, length and world size."""

import csv
import gzip
import io
import json
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from data.encoder import Encoder
from data.formats.rows import to_messages
from data.planning.plan import plan_epoch
from data.readers.source import Source, read
from data.template import choose_template
from data.truncation import MIN_PROMPT
from data.types import IGNORE, Example, Message, Row, TooLongError

settings.register_profile("steady", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("steady")

CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
ANY_TEXT = st.text(CHARACTERS, max_size=40)
CONTROL = st.sampled_from(["<|im_end|>", "<|im_start|>assistant\n", "<pad>", "\n\n", " ", "\u2028"])
CONTENT = st.lists(st.one_of(ANY_TEXT, CONTROL, CONTROL), min_size=1, max_size=4).map("".join)
CONTENT = CONTENT.filter(lambda text: any(letter.isalnum() for letter in text))
PAIRS = st.lists(st.tuples(CONTENT, CONTENT, st.booleans()), min_size=1, max_size=4)


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """Turns as rows give them: stripped, with at least one answer that trains."""
    pairs = draw(PAIRS.filter(lambda pairs: any(train for *_, train in pairs)))
    turns: list[dict[str, Any]] = []
    for question, answer, train in pairs:
        turns += [{"role": "user", "content": question}]
        turns += [{"role": "assistant", "content": answer, "train": train}]
    return to_messages(Row({"messages": turns}, "f", 1))


@pytest.fixture(scope="session", params=["chat", "plain"])
def any_template(request: pytest.FixtureRequest, tokenizer_file: Path) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_file)
    choose_template(tokenizer, request.param)
    return tokenizer


def learned_texts(example: Example, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """Return the text of each run of labels; labels other than IGNORE equal their ids."""
    assert all(label in (IGNORE, i) for i, label in zip(example.ids, example.labels, strict=True))
    runs = groupby(example.labels, key=lambda label: label != IGNORE)
    return [tokenizer.decode(list(run)) for labeled, run in runs if labeled]


@given(messages=conversations())
def test_exactly_the_answers_that_train_and_their_stop_tokens_are_labeled(
    any_template: PreTrainedTokenizerFast, messages: list[Message]
) -> None:
    ((example,),) = Encoder(any_template).encode_all([messages])
    answers = [turn.content for turn in messages if turn.role == "assistant" and turn.train]
    assert learned_texts(example, any_template) == [
        text + any_template.eos_token for text in answers
    ]


@given(messages=conversations(), max_length=st.integers(1, 200))
def test_a_cut_row_keeps_every_answer_and_border_and_both_ends_of_its_prompt(
    any_template: PreTrainedTokenizerFast, messages: list[Message], max_length: int
) -> None:
    ((whole,),) = Encoder(any_template).encode_all([messages])
    (fitted,) = Encoder(any_template, max_length).encode_all([messages])
    cut = fitted[0] if isinstance(fitted, list) else fitted
    first = next(i for i, label in enumerate(whole.labels) if label != IGNORE)
    if len(whole.ids) <= max_length:
        assert cut == whole
    elif isinstance(cut, TooLongError):
        assert cut.tokens == len(whole.ids) - max_length
        # A turn keeps MIN_PROMPT tokens; the borders take a few more.
        turns = next(i for i, m in enumerate(messages) if m.role == "assistant" and m.train)
        assert first - cut.tokens < turns * (MIN_PROMPT + 20)
    else:
        assert isinstance(cut, Example)
        assert len(cut.ids) == max_length == len(whole.ids) - cut.cut
        assert learned_texts(cut, any_template) == learned_texts(whole, any_template)
        controls = set(any_template.all_special_ids)
        assert [i for i in cut.ids if i in controls] == [i for i in whole.ids if i in controls]
        ends = MIN_PROMPT // 2
        assert cut.ids[:ends] == whole.ids[:ends]
        assert cut.ids[first - cut.cut - ends :] == whole.ids[first - ends :]


@given(messages=st.lists(conversations(), min_size=2, max_size=5))
def test_a_row_is_encoded_the_same_alone_and_in_a_batch(
    any_template: PreTrainedTokenizerFast, messages: list[list[Message]]
) -> None:
    encoder = Encoder(any_template, 120)
    together = encoder.encode_all(messages)
    alone = [encoder.encode_all([turns])[0] for turns in messages]
    assert list(map(str, together)) == list(map(str, alone))


@given(
    lengths=st.lists(st.integers(2, 64), max_size=80),
    batch_size=st.integers(1, 9),
    max_tokens=st.none() | st.integers(64, 300),
    accumulate=st.integers(1, 5),
    world_size=st.integers(1, 9),
    group_by_length=st.booleans(),
    seed=st.none() | st.integers(0, 3),
)
def test_a_plan_contains_every_row_once_on_any_world_size(
    lengths: list[int], seed: int | None, **arguments: Any
) -> None:
    rows = np.array(lengths, dtype=np.int64)
    made = plan_epoch(rows, rows - 1, seed=seed, epoch=1, **arguments)
    again = plan_epoch(rows, rows - 1, seed=seed, epoch=1, **arguments)
    groups = [
        made.rows(rank, micro_step)
        for micro_step in range(made.micro_steps)
        for rank in range(arguments["world_size"])
    ]
    assert sorted(row for group in groups for row in group.tolist()) == list(range(len(rows)))
    for group in groups:
        assert len(group) <= arguments["batch_size"]
        assert rows[group].sum() <= (arguments["max_tokens"] or np.inf)
    assert made.labels.sum() == (rows - 1).sum()
    # A resumed run relies on a plan that is a pure function of its arguments.
    assert np.array_equal(made.order, again.order)
    assert np.array_equal(made.starts, again.starts)


def jsonl(rows: list[dict[str, str]], ascii_: bool = False) -> str:
    return "".join(json.dumps(row, ensure_ascii=ascii_) + "\n" for row in rows)


def table(rows: list[dict[str, str]], delimiter: str) -> str:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, ["prompt", "response"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def parquet(rows: list[dict[str, str]]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


WRITERS = {
    "f.jsonl": lambda rows: jsonl(rows).encode(),
    "ascii.jsonl": lambda rows: jsonl(rows, True).encode(),
    "crlf.jsonl": lambda rows: jsonl(rows).replace("\n", "\r\n").encode("utf-8-sig"),
    "cr.jsonl": lambda rows: jsonl(rows).replace("\n", "\r").encode(),
    "utf-16.jsonl": lambda rows: jsonl(rows).encode("utf-16"),
    "f.jsonl.gz": lambda rows: gzip.compress(jsonl(rows).encode()),
    "f.json": lambda rows: json.dumps(rows, ensure_ascii=False, indent=1).encode(),
    "utf-16.json": lambda rows: json.dumps(rows).encode("utf-16"),
    "f.csv": lambda rows: table(rows, ",").encode(),
    "semicolons.csv": lambda rows: table(rows, ";").encode("utf-8-sig"),
    "bars.csv": lambda rows: table(rows, "|").encode(),
    "utf-16.csv": lambda rows: table(rows, "\t").encode("utf-16"),
    "f.tsv": lambda rows: table(rows, "\t").encode(),
    "f.tsv.gz": lambda rows: gzip.compress(table(rows, "\t").encode()),
    "f.parquet": parquet,
}
FIELDS = st.fixed_dictionaries({"prompt": ANY_TEXT, "response": ANY_TEXT})
SPECIAL_TEXTS = [{"prompt": "NA", "response": "None"}, {"prompt": "null", "response": "NaN"}]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("properties")


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=20)
@given(rows=st.lists(FIELDS, min_size=1, max_size=5))
def test_any_text_is_read_unchanged_from_any_file(
    name: str, folder: Path, rows: list[dict[str, str]]
) -> None:
    path = folder / name
    path.write_bytes(WRITERS[name](rows + SPECIAL_TEXTS))
    fields = [row.fields for row in read(path) if isinstance(row, Row)]
    if "sv" in name:  # a record of blank fields is what a spreadsheet leaves below its table
        rows = [row for row in rows if any(value.strip() for value in row.values())]
    assert fields == rows + SPECIAL_TEXTS


@settings(max_examples=20)
@given(text=st.text(st.characters(codec="cp1251", exclude_characters="\0")))
def test_a_given_encoding_is_used(folder: Path, text: str) -> None:
    path = folder / "cp1251.jsonl"
    path.write_bytes(jsonl([{"prompt": text}]).encode("cp1251"))
    (row,) = read(Source(path, encoding="cp1251"))
    assert isinstance(row, Row)
    assert row.fields == {"prompt": text}
