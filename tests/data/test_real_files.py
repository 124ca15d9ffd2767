"""Issue 16: real files of real people, by number; each has the right value or one clear line."""

import datetime
import gzip
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import datasets
import pytest
from openpyxl import Workbook
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from data.encoder import Encoder
from data.formats.guess import guess_columns
from data.formats.rows import read_row
from data.readers import xlsx_file
from data.readers.source import Source, read
from data.report.refusal import as_flag
from data.store import build_store
from data.stores import build_stores
from data.template import encode, prompt_ids
from data.types import IGNORE, DataError, Message, Row, RowError

Turns = list[tuple[str, str]]
CODE = "    if x:\n        return 1"


def turns_of(fields: dict[str, Any], columns: dict[str, str] | None = None) -> Turns:
    return [(m.role, m.content) for m in read_row(Row(fields, "f", 1), columns).messages]


def asked(question: str, answer: str) -> Turns:
    return [("user", question), ("assistant", answer)]


def chat(*contents: Any, **last: Any) -> dict[str, Any]:
    turns = [
        {"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)
    ]
    turns[-1] |= last
    return {"messages": turns}


Q = {"question": "Why?"}
READ: dict[str, tuple[dict[str, Any], Turns]] = {
    "1: indented code": ({"prompt": "Fix.", "response": CODE}, asked("Fix.", CODE)),
    "1: code in a turn": (chat("Fix.", f"\n{CODE}\n"), asked("Fix.", CODE)),
    "1: a question as filed": (Q | {"question": " a\n", "answer": "b"}, asked(" a\n", "b")),
    "1: the old completion's blank": ({"prompt": "a", "completion": " b\n"}, asked("a", "b")),
    "1: blank input": (
        {"instruction": "a", "input": "\n", "system": " ", "output": "b"},
        asked("a", "b"),
    ),
    "2: a passage": (
        Q | {"passage": "It rains.", "answer": "Rain."},
        asked("It rains.\n\nWhy?", "Rain."),
    ),
    "2: an instruction's context": (
        {"instruction": "Sum up.", "context": "It rains.", "response": "Rain."},
        asked("Sum up.\n\nIt rains.", "Rain."),
    ),
    "2: history in pairs": (
        Q | {"history": [["a", "b"], ["c", "d"]], "answer": "So."},
        [*asked("a", "b"), *asked("c", "d"), *asked("Why?", "So.")],
    ),
    "2: no tools": (Q | {"answer": "So.", "tools": [], "images": None}, asked("Why?", "So.")),
    "2: label true": ({"prompt": "a", "completion": "b", "label": True}, asked("a", "b")),
    "11: capitals": ({"Question": "a", "ANSWER": "b"}, asked("a", "b")),
    "11: Russian": ({"Вопрос": "a", "Ответ ": "b"}, asked("a", "b")),
    "11: Russian with context": (
        {"Инструкция": "a", "Контекст": "c", "Ответ": "b", "Система": "s"},
        [("system", "s"), *asked("a\n\nc", "b")],
    ),
    "11: query/response": ({"query": "a", "response": "b"}, asked("a", "b")),
    "11: input/output": ({"input": "a", "output": "b"}, asked("a", "b")),
    "11: another pair": ({"instruction": "a", "answer": "b"}, asked("a", "b")),
    "11: a pair before its rival": (
        {"question": "a", "answer": "b", "output": "c"},
        asked("a", "b"),
    ),
    "11: text alone": ({"text": "a b", "id": 7}, [("text", "a b")]),
    "11: bot and developer": (
        {
            "conversation": [
                {"from": "developer", "value": "s"},
                {"from": "Human", "value": "a"},
                {"from": "bot", "value": "b"},
            ]
        },
        [("system", "s"), *asked("a", "b")],
    ),
    "11: conversations with role and content": (
        {"conversations": chat("a", "b")["messages"]},
        asked("a", "b"),
    ),
    "11: Russian turns": (
        {"диалог": [{"роль": "пользователь", "текст": "a"}, {"роль": "ассистент", "текст": "b"}]},
        asked("a", "b"),
    ),
    "11: parts": (
        chat([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "c"),
        asked("ab", "c"),
    ),
    "11: a number": (Q | {"answer": 7}, asked("Why?", "7")),
    "11: true": (Q | {"answer": True}, asked("Why?", "true")),
    "11: an object": (Q | {"answer": {"да": [1]}}, asked("Why?", '{"да":[1]}')),
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "2: label false": ({"prompt": "a", "completion": "b", "label": False}, "label: false marks"),
    "2: preference": ({"prompt": "a", "chosen": "b", "rejected": "c"}, "chosen: pairs of a good"),
    "2: tools": (Q | {"answer": "So.", "tools": [{"name": "f"}]}, "tools: calls of tools cannot"),
    "2: images": (Q | {"answer": "So.", "images": ["a.png"]}, "images: images and sound cannot"),
    "2: a weight": (Q | {"answer": "So.", "weight": 0.5}, "weight: only a weight of 1"),
    "2: a tool call": (chat("a", "b", tool_calls=[{}]), r"messages\[1\].tool_calls: calls of"),
    "2: half a turn": (chat("a", "b", weight=0.5), r"messages\[1\].weight: 0.5 is neither 0 nor 1"),
    "2: history as text": (Q | {"answer": "So.", "history": "a"}, "history: not a list of"),
    "11: an image part": (
        chat([{"type": "image_url", "image_url": "x"}], "b"),
        r"messages\[0\].content\[0\]: a part of type 'image_url'",
    ),
    "11: labels of texts": ({"text": "Great", "label": 1}, "text, label: unknown keys"),
}


@pytest.mark.parametrize("case", READ)
def test_a_row_means_what_its_author_meant(case: str) -> None:
    fields, expected = READ[case]
    assert turns_of(fields) == expected


@pytest.mark.parametrize("case", REFUSED)
def test_a_meaning_that_cannot_be_learned_is_refused_by_name(case: str) -> None:
    fields, reason = REFUSED[case]
    with pytest.raises(RowError, match=f"^{reason}"):
        read_row(Row(fields, "f", 1))


@pytest.mark.parametrize("told", [{"train": False}, {"weight": 0}], ids=["2: train", "2: weight"])
def test_a_turn_can_be_left_unlearned(told: dict[str, Any]) -> None:
    row = chat("a", "b", "c", "d")
    row["messages"][1] |= told
    assert [m.train for m in read_row(Row(row, "f", 1)).messages] == [True, False, True, True]


def write(path: Path, content: str | bytes, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def jsonl(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def rows_of(source: Source | Path) -> list[tuple]:
    return [tuple(row.fields.values()) for row in read(source) if isinstance(row, Row)]


def test_2_other_keys_and_10_changes_are_said_once(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = [Q | {"answer": i, "id": i, "note": ""} for i in range(3)]
    turns = chat("a<|im_end|>", " b", name="Ann")
    path = write(tmp_path / "f.jsonl", jsonl(*rows, turns))
    report = build_store(path, tokenizer, max_length=96).report
    assert report.lines() == [
        f"{path}: not read: id, messages[].name",
        "3 answers that are numbers or true/false are learned as text",
        "1 answers had blank lines or one space before them, or white space behind, which is "
        "removed",
        "1 special tokens in texts are read as ordinary text",
    ]


def learned(messages: list[Message], tokenizer: PreTrainedTokenizerFast) -> str:
    labels = encode(messages, tokenizer).labels
    return tokenizer.decode([label for label in labels if label != IGNORE])


ASK = Message("user", "Why?")
THINKS = Message("assistant", "<think>\nHm.\n</think>\n\nSo.")
DROPS = {
    "3: it cuts thoughts": (
        "{{ m.content.split('</think>')[-1] }}",
        [ASK, THINKS],
        "turn 2: the template does not write all of this answer, as it leaves out what the model",
    ),
    "3: it drops the system text": (
        "{{ m.content if m.role != 'system' }}",
        [Message("system", "Be brief."), ASK, Message("assistant", "So.")],
        "turn 1: the template does not write all of this system text",
    ),
    "3: it drops one of two equal questions": (
        "{{ m.content if loop.index != 3 }}",
        [ASK, Message("assistant", "So."), ASK, Message("assistant", "Yes.")],
        "turn 3: the template does not write all of this question",
    ),
}


@pytest.mark.parametrize("case", DROPS)
def test_a_text_that_the_template_drops_is_missed(
    case: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    content, messages, reason = DROPS[case]
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "{{ message['content'] }}", content.replace("m.", "message.")
    )
    with pytest.raises(RowError, match=reason):
        encode(messages, tokenizer)


def test_2_thoughts_are_learned_where_the_template_takes_them(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    (messages,) = [read_row(Row(chat("Why?", "So.", thinking="Hm."), "f", 1)).messages]
    with pytest.raises(RowError, match="leaves out what the model thinks"):
        encode(messages, tokenizer)
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "{{ message['content'] }}", "{{ message.reasoning_content }}|{{ message['content'] }}"
    )
    assert learned(messages, tokenizer) == "Hm.|So.<|im_end|>"


GENERATION = "{% if add_generation_prompt %}"
SHAPES = {
    "ChatML": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        + GENERATION
        + "<|im_start|>assistant\n{% endif %}",
        ["<|im_start|>", "<|im_end|>"],
    ),
    "Qwen with thoughts": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and loop.last and '</think>' not in m.content %}"
        "<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
        + GENERATION
        + "<|im_start|>assistant\n{% endif %}",
        ["<|im_start|>", "<|im_end|>"],
    ),
    "Llama 3": (
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
        "{{ m.content | trim }}<|eot_id|>{% endfor %}"
        + GENERATION
        + "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    ),
    "Gemma": (
        "{{ bos_token }}{% for m in messages %}<start_of_turn>"
        "{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
        "{% endfor %}" + GENERATION + "<start_of_turn>model\n{% endif %}",
        ["<start_of_turn>", "<end_of_turn>"],
    ),
    "Mistral": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}"
        "[/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}",
        ["[INST]", "[/INST]"],
    ),
}
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS = {"GPT-2": GPT2, "Llama 3": LLAMA3}
TEXTS = {
    "words": ("How warm?", "Sixty degrees\n\nis enough.  👍"),
    "Russian": ("Почему деталь\nотклеилась?", "Стол был холодным — да."),
    "template's tags": ("Why?", "<think>\nHm. Why?\n</think>\n\nIt sticks."),
    "a tag asked about": ("What is <think>\n?", "A tag."),
    "the user's own token": ("Is <brand> good?", "<brand> is."),
    "tabs and spaces": ("a\tb  c ", "x\t= 1\n\ty = 2"),
    "indented code": ("Fix.", CODE),
}
WHITE = [" \n", "\n\n", " " * 4, "\n" + " " * 3, "\n" + " " * 4, "\t", "  ", " " * 8]


@pytest.fixture(scope="module")
def cores() -> dict[tuple[str, str], PreTrainedTokenizerFast]:
    """A tokenizer for each shape of template and each way to split words."""
    made = {}
    for split, pattern in SPLITS.items():
        for shape, (template, special) in SHAPES.items():
            core = Tokenizer(models.BPE())
            core.pre_tokenizer = pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Split(Regex(pattern), "isolated"),
                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
                ]
            )
            core.decoder = decoders.ByteLevel()
            core.train_from_iterator(
                # So that white space of all lengths has tokens, which can merge at borders.
                [*(f"a{white}b" for white in WHITE for _ in range(9)), "assistant is user"],
                trainers.BpeTrainer(
                    vocab_size=400,
                    special_tokens=["<s>", "</s>", *special],
                    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                    show_progress=False,
                ),
            )
            tokenizer = PreTrainedTokenizerFast(
                tokenizer_object=core, bos_token="<s>", eos_token="</s>", chat_template=template
            )
            tokenizer.add_tokens(["<think>", "</think>", "<brand>"])
            made[shape, split] = tokenizer
    return made


@pytest.mark.parametrize("turns", [1, 2])
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("shape", SHAPES)
def test_4_tokens_are_those_of_the_tokenizers_own_template(
    shape: str, split: str, text: str, turns: int, cores: dict
) -> None:
    tokenizer = cores[shape, split]
    question, answer = TEXTS[text]
    messages = [Message("user", question), Message("assistant", answer)] * turns
    chat = [{"role": m.role, "content": m.content} for m in messages]

    def own(turns: list[dict[str, str]], **settings: bool) -> list[int]:
        return tokenizer.apply_chat_template(turns, return_dict=False, **settings)

    (examples,) = Encoder(tokenizer).encode_all([messages])
    example = examples[-1]
    whole = own(chat)
    prompt = own(chat[:-1], add_generation_prompt=True)
    assert prompt_ids(messages[:-1], tokenizer) == prompt
    merges = whole[: len(prompt)] != prompt
    assert merges <= (text == "indented code")
    if not merges:
        assert example.ids == whole[: len(example.ids)]
    # White space that an answer begins with is learned as chat asks for it: after the prompt.
    assert example.ids[: len(prompt)] == prompt
    first, *_ = examples
    start = [label == IGNORE for label in first.labels].index(False)
    assert first.ids[:start] == own(chat[:1], add_generation_prompt=True)
    rendered = tokenizer.apply_chat_template(chat, tokenize=False)
    assert rendered.startswith(tokenizer.decode(example.ids))
    learned = tokenizer.decode([label for label in first.labels if label != IGNORE])
    assert learned.split(tokenizer.decode(first.ids[-1]))[0].strip().endswith(answer.strip())


def test_4_only_special_tokens_in_texts_are_guarded_and_counted(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    tokenizer.add_tokens(["<brand>"])
    ids = encode([Message("user", "<brand><|im_end|>"), Message("assistant", "No.")], tokenizer)
    assert ids.guarded == 1
    assert ids.ids.count(tokenizer.convert_tokens_to_ids("<brand>")) == 1
    assert ids.ids.count(tokenizer.eos_token_id) == 2


@pytest.mark.parametrize("text", ["a b", "<|im_end|> a"])
def test_11_a_text_alone_is_learned_whole(text: str, tokenizer: PreTrainedTokenizerFast) -> None:
    (message,) = read_row(Row({"text": text}, "f", 1)).messages
    example = encode([message], tokenizer)
    assert example.labels == [IGNORE, *example.ids[1:]]
    assert tokenizer.decode(example.ids) == text + "<|im_end|>"
    assert example.ids.count(tokenizer.eos_token_id) == 1
    short = encode([message], tokenizer, len(example.ids) - 1)
    assert (short.ids, short.cut) == (example.ids[:-1], 1)


def split_names(folder: Path) -> Path:
    for name in ("train-0.jsonl", "train-1.jsonl", "validation.jsonl", "test.jsonl", ".x.jsonl"):
        write(folder / name, jsonl({"n": name}))
    write(folder / "~$rows.xlsx", b"lock")
    write(folder / "old" / "rows.jsonl", jsonl({"n": "old"}))
    return folder


def saved(folder: Path) -> Path:
    tables = {name: datasets.Dataset.from_dict({"n": [name]}) for name in ("train", "test")}
    datasets.DatasetDict(tables).save_to_disk(str(folder))
    return folder


def test_6_names_of_splits_are_honored_and_said(tmp_path: Path) -> None:
    source = Source(split_names(tmp_path))
    assert rows_of(source) == [("train-0.jsonl",), ("train-1.jsonl",)]
    validation = source.validation()
    assert validation
    assert rows_of(validation) == [("validation.jsonl",)]
    assert source.found().notes == [
        "not read: the folders old",
        "validation.jsonl: not for training, as the name says validation",
        "test.jsonl: not for training, as the name says test",
    ]


def test_6_what_save_to_disk_wrote_is_read(tmp_path: Path) -> None:
    folder = saved(tmp_path / "d")
    assert rows_of(Source(folder)) == [("train",)]
    assert rows_of(Source(folder / "test")) == [("test",)]
    assert len(Source(folder / "test").states()) == len(Source(folder / "test").fingerprint()) - 63


def test_6_folders_in_a_folder_without_data_are_named(tmp_path: Path) -> None:
    write(tmp_path / "a" / "f.jsonl", "{}")
    with pytest.raises(DataError, match="its folders are a: give one"):
        Source(tmp_path).parts()


def notes_of(path: Path) -> list[str]:
    notes: list[str] = []
    list(Source(path).read(str(path), notes))
    return notes


@pytest.mark.parametrize("separator", [",", "\t"])
def test_6_a_record_that_swallows_others_is_reported(separator: str, tmp_path: Path) -> None:
    content = 'q,a\n1,2\n"5 inch,yes\n6,no\n7 inch",no\n"8\nhas, more, text",9\n'
    path = write(tmp_path / "f.csv", content.replace(",", separator))
    (note,) = notes_of(path)[1:]
    assert note.startswith("a record spans lines that look like records of their own, from line 3:")


TSV = {
    "6: quotes that are letters": (
        'q\ta\n5" pipe\t"yes\n6\tno\n',
        [('5" pipe', '"yes'), ("6", "no")],
    ),
    "6: real quotes": ('q\ta\n"5\n6"\tno\n', [("5\n6", "no")]),
}


@pytest.mark.parametrize("case", TSV)
def test_tabs_without_quoting_are_read_as_such(case: str, tmp_path: Path) -> None:
    content, expected = TSV[case]
    path = write(tmp_path / "f.tsv", content)
    assert rows_of(path) == expected
    assert ("without quoting" in notes_of(path)[0]) == (case != "6: real quotes")


def workbook(path: Path) -> Path:
    book = Workbook()
    sheet = book.active
    sheet.title = "Лист1"
    sheet.append([None, None])
    sheet.append(["Вопрос", "Ответ", None])
    sheet.append(["Сколько?", 5.0])
    sheet.append([None, None])
    sheet.append(["Когда?", datetime.datetime(2024, 5, 1)])
    book.create_sheet("Other")
    book.save(path)
    return path


PRETTY = json.dumps({"question": "a", "answer": "b"}, indent=2)
PAIR = [("a", "b")]
IDENTIFIED: dict[str, tuple[str, str | bytes, list[tuple]]] = {
    "9: a list in .jsonl": ("f.jsonl", '[{"question": "a",\n "answer": "b"}]', PAIR),
    "9: pretty-printed .jsonl": ("f.jsonl", f"{PRETTY}\n{PRETTY}\n", PAIR * 2),
    "9: lines in .json": ("f.json", jsonl(json.loads(PRETTY), json.loads(PRETTY)), PAIR * 2),
    "9: one object": ("f.json", PRETTY, PAIR),
    "9: data in an object": ("f.json", f'{{"version": "1", "data": [{PRETTY}], "n": 1}}', PAIR),
    "9: messages in an object": (
        "f.json",
        '{"messages": [{"role": "user"}]}',
        [([{"role": "user"}],)],
    ),
    "9: sep=;": ("f.csv", "sep=;\r\nq;a\r\na;b\r\n", PAIR),
    "9: empty columns at the right": ("f.csv", "q,a,,\na,b,,\na,b\n", PAIR * 2),
    "9: gzip without its name": ("f.csv", gzip.compress(b"q,a\na,b\n"), PAIR),
    "9: JSONL named .csv": ("f.csv", jsonl(json.loads(PRETTY)), PAIR),
}
NAMED: dict[str, tuple[str, bytes, str]] = {
    "9: LFS": ("f.jsonl", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "9: HTML": ("f.json", b"\n<!DOCTYPE html><html>", "is a web page, not data"),
    "9: a zip": ("f.csv", b"PK\x03\x04....", "damaged zip archive"),
    "9: an old .xls": ("f.xls", b"\xd0\xcf\x11\xe0....", "save its table as CSV UTF-8"),
    "9: two lists": (
        "f.json",
        b'{"train": [{"a": 1}], "test": [{"a": 1}]}',
        "in train and in test",
    ),
    "9: mixed separators": (
        "f.csv",
        b"q;a\n1,2\n3,4\n",
        "header is separated by semicolons, but the records by commas",
    ),
}


@pytest.mark.parametrize("case", IDENTIFIED)
def test_a_file_is_what_its_first_bytes_say(case: str, tmp_path: Path) -> None:
    name, content, expected = IDENTIFIED[case]
    assert rows_of(write(tmp_path / name, content)) == expected


@pytest.mark.parametrize("case", NAMED)
def test_a_file_that_is_no_data_is_named_in_one_line(case: str, tmp_path: Path) -> None:
    name, content, reason = NAMED[case]
    with pytest.raises(DataError, match=reason) as error:
        list(read(write(tmp_path / name, content)))
    assert len(str(error.value).splitlines()) == 1


def test_9_the_first_sheet_of_a_workbook_is_read(tmp_path: Path) -> None:
    path = workbook(tmp_path / "f.xlsx")
    assert rows_of(path) == [("Сколько?", "5"), ("Когда?", "2024-05-01")]
    assert notes_of(path) == ["the sheet Лист1; not read: Other"]


def test_9_an_empty_cell_at_the_end_of_a_record_is_a_blank_value(tmp_path: Path) -> None:
    book = Workbook()
    for cells in (["q", "a", "note"], ["Why?", "So."], ["How?"]):
        book.active.append(cells)
    book.save(path := tmp_path / "f.xlsx")
    rows = [row.fields for row in read(path) if isinstance(row, Row)]
    assert rows == [
        {"q": "Why?", "a": "So.", "note": ""},
        {"q": "How?", "a": "", "note": ""},
    ]


def test_9_a_workbook_that_unpacks_to_too_much_or_is_broken_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = workbook(tmp_path / "f.xlsx")
    monkeypatch.setattr(xlsx_file, "MAX_UNPACKED", 1000)
    with pytest.raises(DataError, match=r"unpacks to 0\.0 GB, and at most"):
        list(read(path))
    monkeypatch.undo()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "g.xlsx", "w") as new:
        for part in old.namelist():
            broken = part.startswith("xl/worksheets/")
            new.writestr(part, b"<worksheet><sheetData><row" if broken else old.read(part))
    with pytest.raises(DataError, match="not an Excel workbook"):
        list(read(tmp_path / "g.xlsx"))


def test_9_without_openpyxl_one_line_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = workbook(tmp_path / "f.xlsx")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(DataError, match="pip install openpyxl, or save the sheet as CSV UTF-8"):
        list(read(path))


def refusal(tokenizer: PreTrainedTokenizerFast, *paths: Path, **settings: Any) -> list[str]:
    train, *val = (Source(path, **settings) for path in paths)
    with pytest.raises(DataError) as error:
        build_stores(train, val[0] if val else None, tokenizer, max_length=96)
    return str(error.value).splitlines()


def test_10_all_files_are_refused_together_with_flags_to_paste(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    text = "Frage;Antwort;Nr\n" + "Почему не греется стол?;Он холодный, сопло высоко;1\n" * 500
    train = write(tmp_path / "a.csv", text, "cp1251")
    val = write(tmp_path / "b.csv", text.replace("стол", "дом"), "cp1251")
    lines = refusal(tokenizer, train, val)
    assert len(lines) == 2 * 2 + 1
    flags = "--`encoding` cp1251 --`columns` '{question: Frage, answer: Antwort}'"
    assert lines[-1] == f"Add {flags}"
    told = {"encoding": "cp1251", "columns": {"question": "Frage", "answer": "Antwort"}}
    assert len(build_stores(Source(train, **told), None, tokenizer, max_length=96)[0]) == 500  # type: ignore[arg-type]


def test_10_a_table_without_header_shows_its_first_row_once(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    path = write(tmp_path / "f.csv", "".join(f"Why is it {i}?,Because it is.\n" for i in range(99)))
    lines = refusal(tokenizer, path)
    assert sum("Why is it" in line for line in lines) == 1
    assert lines[-1] == """Add --`columns` '{question: "1", answer: "2"}'"""
    store = build_store(
        Source(path, columns={"question": "1", "answer": "2"}), tokenizer, max_length=96
    )
    assert len(store) == 99


def test_10_skip_is_advised_only_if_rows_remain(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    bad, good = Q | {"answer": None}, Q | {"answer": "So."}
    path = tmp_path / "f.jsonl"
    assert "on_bad_row" not in refusal(tokenizer, write(path, jsonl(*[bad] * 9)))[-1]
    assert refusal(tokenizer, write(path, jsonl(bad, good)))[-1].endswith("add --`on_bad_row` skip")


GUESSED: dict[str, tuple[list[str], str | None]] = {
    "10: two unknown": (["№", "Frage", "Antwort"], "{question: Frage, answer: Antwort}"),
    "10: one known": (["answer", "Frage"], "{question: Frage, answer: answer}"),
    "10: a classifier's": (["text", "label"], "{question: text, answer: label}"),
    "10: odd names": (["a: b", "it's"], '{question: "a: b", answer: "it\'s"}'),
    "10: too few": (["id", "Frage"], None),
}


@pytest.mark.parametrize("case", GUESSED)
def test_columns_are_proposed_where_names_are_unknown(case: str) -> None:
    keys, expected = GUESSED[case]
    guess = guess_columns(keys)
    assert (as_flag(guess) if guess else None) == expected


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "cp866"])
def test_10_a_certain_encoding_is_used_and_told(encoding: str, tmp_path: Path) -> None:
    text = "вопрос;ответ\nПочему не греется стол?;Он холодный, а сопло стоит высоко.\n"
    path = write(tmp_path / "f.csv", text * 3, encoding)
    notes: list[str] = []
    rows = list(Source(path, encoding="auto").read(str(path), notes))
    assert rows[0].fields["ответ"].startswith("Он холодный")  # type: ignore[union-attr]
    assert notes[0].endswith(": вопрос;ответ")


def test_10_an_uncertain_encoding_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", "q,a\nда,нет\n", "cp1251")
    with pytest.raises(DataError, match="not UTF-8"):
        list(read(Source(path, encoding="auto")))


@pytest.mark.parametrize("train_on", ["all", "last"])
def test_13_all_answers_or_the_last_are_learned(
    train_on: str, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    path = write(tmp_path / "f.jsonl", jsonl(chat("a", "b", "c", "d")))
    store = build_store(path, tokenizer, max_length=96, train_on=train_on)
    assert [turn.train for turn in store.messages(0)][1::2] == [train_on == "all", True]
    labels = [label for label in store.example(0).labels if label != IGNORE]
    assert tokenizer.decode(labels) == {"all": "b<|im_end|>d", "last": "d"}[train_on] + "<|im_end|>"
