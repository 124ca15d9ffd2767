"""Readers yield every record with its line, or say what is wrong and where."""

import csv
import gzip
import json
from pathlib import Path

import pytest

from data.readers.json_file import ObjectDecoder
from data.readers.source import Source, read
from data.types import BadRow, DataError, Row

GOOD: dict[str, tuple[str, str, list[tuple[int, dict]]]] = {
    "jsonl": ("f.jsonl", '{"q": "1"}\n{"q": "2"}\n', [(1, {"q": "1"}), (2, {"q": "2"})]),
    "jsonl, no last newline": ("f.jsonl", '{"q": "1"}', [(1, {"q": "1"})]),
    "jsonl, blank lines": (
        "f.jsonl",
        '\n{"q": "1"}\n \n\n{"q": "2"}\n\n',
        [(2, {"q": "1"}), (5, {"q": "2"})],
    ),
    "jsonl, CRLF and BOM": (
        "f.jsonl",
        '\ufeff{"q": "1"}\r\n{"q": "2"}\r\n',
        [(1, {"q": "1"}), (2, {"q": "2"})],
    ),
    "json": ("f.json", '[{"q": "1"},\n{"q": ["2"]}]', [(1, {"q": "1"}), (2, {"q": ["2"]})]),
    "json, BOM": ("f.json", '\ufeff[{"q": "1"}]', [(1, {"q": "1"})]),
    "csv": ("f.csv", "q,a\n1,2\n3,4\n", [(2, {"q": "1", "a": "2"}), (3, {"q": "3", "a": "4"})]),
    "csv, name in capitals": ("F.CSV", "q,a\n1,2\n", [(2, {"q": "1", "a": "2"})]),
    "csv, one column": ("f.csv", "q\n1\n", [(2, {"q": "1"})]),
    "csv, newlines in quotes": (
        "f.csv",
        'q,a\n"1\n\n1",2\n3,"4\n"\n5,6',
        [(2, {"q": "1\n\n1", "a": "2"}), (5, {"q": "3", "a": "4\n"}), (7, {"q": "5", "a": "6"})],
    ),
    "csv, blank lines": (
        "f.csv",
        "q,a\n\n1,2\n\n\n3,4\n\n",
        [(3, {"q": "1", "a": "2"}), (6, {"q": "3", "a": "4"})],
    ),
    "csv, CRLF": (
        "f.csv",
        'q,a\r\n"1\r\n1",2\r\n3,4\r\n',
        [(2, {"q": "1\r\n1", "a": "2"}), (4, {"q": "3", "a": "4"})],
    ),
    "csv, BOM before a quote": ("f.csv", '\ufeff"q",a\n1,2\n', [(2, {"q": "1", "a": "2"})]),
    "csv, semicolons": ("f.csv", 'q;a\n1,5;"2;5"\n', [(2, {"q": "1,5", "a": "2;5"})]),
    "csv, tabs": ("f.csv", "q\ta\n1,5\t2;5\n", [(2, {"q": "1,5", "a": "2;5"})]),
    "csv, spaces around names": ("f.csv", "q, a\n1, 2\n", [(2, {"q": "1", "a": " 2"})]),
    "csv, an empty field": ("f.csv", "q,a\n1,\n", [(2, {"q": "1", "a": ""})]),
    "tsv": ("f.tsv", "q\ta,b;c,d\n1\t2\n", [(2, {"q": "1", "a,b;c,d": "2"})]),
}
FAULTS = {
    "jsonl, cut short": ("f.jsonl", '{"q": "1"}\n\n{"q": "2\n{"q": "3"}\n', 3, "not JSON"),
    "jsonl, a list": ("f.jsonl", '{"q": "1"}\n["2"]\n{"q": "3"}\n', 2, "not an object but a list"),
    "jsonl, a text": ("f.jsonl", '{"q": "1"}\n"2"\n{"q": "3"}\n', 2, "not an object but text"),
    "jsonl, a huge number": (
        "f.jsonl",
        f'{{"q": "1"}}\n{"2" * 5000}\n{{"q": "3"}}\n',
        2,
        "not JSON",
    ),
    "json, a number": ("f.json", '[{"q": "1"},\n2,\n{"q": "3"}]', 2, "not an object but a number"),
    "csv, a field too few": ("f.csv", "q,a\n1,1\n2\n3,3\n", 3, "1 field, but the header has 2"),
    "csv, a field too many": (
        "f.csv",
        'q,a\n"1\n1",1\n2,2,2\n3,3\n',
        4,
        "3 fields, but the header has 2",
    ),
    "csv, a quote inside": ("f.csv", 'q,a\n1,1\n"2"2,2\n3,3\n', 3, "not CSV"),
    "tsv, a field too many": ("f.tsv", "q\ta\n1\t1\n2\t2\t2\n3\t3\n", 3, "3 fields"),
}
UNUSABLE: dict[str, tuple[str, bytes | None, str]] = {
    "missing": ("f.jsonl", None, "does not exist; .* has .*other.csv"),
    "in a missing folder": ("no/f.jsonl", None, "does not exist, nor does .*no"),
    "an empty folder": ("folder.jsonl", None, "is a folder without .jsonl"),
    "empty jsonl": ("f.jsonl", b"", "holds no rows"),
    "blank jsonl": ("f.jsonl", b"\n \n", "holds no rows"),
    "empty list": ("f.json", b"[]", "holds no rows"),
    "empty csv": ("f.csv", b"", "holds no rows"),
    "header only": ("f.csv", b"q,a\n", "holds no rows"),
    "not JSON": ("f.json", b'[\n{"q": }]', ":2: not JSON"),
    "a number": ("f.json", b"7", "holds neither a list nor an object"),
    "Windows-1251 jsonl": (
        "f.jsonl",
        '{"q": "да"}'.encode("cp1251"),
        "not UTF-8 but likely .*set `encoding` to .*, or save the file as UTF-8",
    ),
    "Windows-1251 csv": (
        "f.csv",
        "q\nда\n".encode("cp1251"),
        "not UTF-8 but likely .*set `encoding` to .*, or save the file as UTF-8",
    ),
    "UTF-16 without a mark": (
        "f.csv",
        "q\n1\n".encode("utf-16-le"),
        "set `encoding` to utf-16-le",
    ),
    "Windows-1251 json": (
        "f.json",
        '[{"q": "да"}]'.encode("cp1251"),
        "not UTF-8 but likely .*set `encoding` to .*, or save the file as UTF-8",
    ),
    "a text file": ("f.txt", b"q", r"must end in one of \.jsonl, \.json, \.csv, \.tsv"),
    "no suffix": ("f", b"q", "must end in one of"),
}
TEXTS = [
    *("NA", "None", "null", "nan", "true", "007", "1e5", " edge "),
    *('say "a, b; c"', "a\tb\\n", "line\nline\r\nline\rline", "\u2028\u2029\x85\x0b\x0c",
      "👩‍🚀 é 中文"),
    "".join(chr(code) for code in range(1, 0x3000)),
]  # fmt: skip


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("case", GOOD)
def test_a_record_has_its_fields_and_the_line_where_it_begins(case: str, tmp_path: Path) -> None:
    name, content, expected = GOOD[case]
    path = write(tmp_path / name, content)
    assert list(read(path)) == [Row(fields, str(path), line) for line, fields in expected]


@pytest.mark.parametrize("case", FAULTS)
def test_a_broken_record_is_reported_and_the_next_one_is_read(case: str, tmp_path: Path) -> None:
    name, content, line, reason = FAULTS[case]
    path = write(tmp_path / name, content)
    first, bad, last = read(path)
    assert isinstance(bad, BadRow)
    assert str(bad).startswith(f"{path}:{line}: {reason}")
    assert isinstance(first, Row)
    assert isinstance(last, Row)
    assert (first.fields["q"][0], last.fields["q"]) == ("1", "3")


@pytest.mark.parametrize("case", UNUSABLE)
def test_the_error_names_an_unusable_file_and_what_to_do(case: str, tmp_path: Path) -> None:
    name, content, advice = UNUSABLE[case]
    write(tmp_path / "other.csv", "q,a\n1,2\n")
    (tmp_path / "folder.jsonl").mkdir()
    path = tmp_path / name if content is None else write(tmp_path / name, content)
    with pytest.raises(DataError, match=advice) as error:
        list(read(path))
    assert str(path) in str(error.value)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv"])
@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text)[:30])
def test_any_text_is_read_unchanged(text: str, suffix: str, tmp_path: Path) -> None:
    rows = [{"prompt": text, "response": "1"}, {"prompt": "2", "response": text}]
    path = tmp_path / f"f{suffix}"
    if suffix == ".json":
        write(path, json.dumps(rows, ensure_ascii=False))
    elif suffix == ".jsonl":
        write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    assert [row.fields for row in read(path) if isinstance(row, Row)] == rows


def test_a_json_object_has_the_line_where_it_begins(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[\n{"a": 1},\n\n  {"a":\n 2}, 3\n]\n', "utf-8")
    assert [row.line for row in read(path)] == [2, 4, 5]


BROKEN_JSON = {
    "nested without end": "[" * 100_000,
    "a number of 5,000 digits": '[{"a": ' + "1" * 5000 + "}]",
    "no end": '[{"a": 1}',
    "no comma": '[{"a": 1} {"a": 2}]',
    "something behind": '[{"a": 1}] 2',
}


@pytest.mark.parametrize("fault", BROKEN_JSON)
def test_the_error_names_the_line_of_broken_json(fault: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(BROKEN_JSON[fault], "utf-8")
    with pytest.raises(DataError, match=r"rows\.json:1: not JSON"):
        list(read(path))


def test_a_line_nested_without_end_is_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("[" * 100_000 + '\n{"a": 1}\n', "utf-8")
    bad, good = read(path)
    assert isinstance(bad, BadRow)
    assert isinstance(good, Row)


def test_a_blank_first_line_does_not_hide_the_separator(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("\nq;a\n1;2\n", "utf-8")
    assert [row.fields for row in read(path)] == [{"q": "1", "a": "2"}]


def test_a_record_of_empty_fields_is_passed_over_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("q,a\n,\n3,4\n", "utf-8")
    notes: list[str] = []
    assert [row.line for row in Source(path).read(str(path), notes)] == [3]
    assert notes == ["separated by commas", "1 empty records passed over"]


def test_a_column_that_appears_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("q,q\n1,2\n", "utf-8")
    with pytest.raises(DataError, match="column 'q' appears twice"):
        list(read(path))


def test_a_very_long_field_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('q,a\n"' + "x" * 140_000 + '\nz",2\n', "utf-8")
    (row,) = read(path)
    assert len(row.fields["q"]) == 140_002


def test_an_unclosed_quote_stops_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('q,a\n"1,2\n3,4\n', "utf-8")
    with pytest.raises(DataError, match=r"rows\.csv:2: not CSV from here on"):
        list(read(path))


def test_the_files_of_a_folder_are_read_in_order_of_their_names(tmp_path: Path) -> None:
    write(tmp_path / "b.csv", "q\n3\n")
    write(tmp_path / "a.jsonl", '{"q": "1"}\n{"q": "2"}')
    write(tmp_path / "c.jsonl.gz", gzip.compress(b'{"q": "4"}'))
    write(tmp_path / "notes.txt", "q")
    rows = [row for row in read(tmp_path) if isinstance(row, Row)]
    assert [row.fields["q"] for row in rows] == ["1", "2", "3", "4"]
    assert [(Path(row.file).name, row.line) for row in rows] == [
        *[("a.jsonl", 1), ("a.jsonl", 2), ("b.csv", 2), ("c.jsonl.gz", 1)]
    ]


def test_several_files_are_read_in_the_given_order(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{name}.jsonl", f'{{"q": "{name}"}}') for name in "bac"]
    assert [row.fields["q"] for row in read(Source(paths)) if isinstance(row, Row)] == [*"bac"]
    assert Source(paths).name == "b.jsonl, a.jsonl, c.jsonl"


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([], "`path` is empty"),
        (["a.jsonl", "a.jsonl"], "a.jsonl is listed twice"),
        (["a.jsonl", ""], "a.jsonl is listed twice"),
        (["a.jsonl", "none.jsonl"], "none.jsonl does not exist"),
        (["f.parquet.gz"], "must end in one of .*the first four may be followed by .gz"),
    ],
)
def test_unusable_lists_of_files_are_refused(names: list[str], reason: str, tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", "{}")
    write(tmp_path / "f.parquet.gz", "")
    with pytest.raises(DataError, match=reason):
        list(read(Source([tmp_path / name for name in names])))


SEPARATED = {
    "commas": ("f.csv", "q,a\n1,2\n", None),
    "semicolons": ("f.csv", "q;a\n1;2\n", None),
    "tabs": ("f.csv", "q\ta\n1\t2\n", None),
    "bars": ("f.csv", "q|a\n1|2\n", None),
    "'~'": ("f.csv", "q~a\n1~2\n", "~"),
    "semicolons beside quoted commas": ("f.csv", '"q";"a";"b, c, d, e"\n1;2;3\n', None),
}


@pytest.mark.parametrize("name", SEPARATED)
def test_a_separator_is_found_or_given_and_described(name: str, tmp_path: Path) -> None:
    file, content, separator = SEPARATED[name]
    path = write(tmp_path / file, content)
    source = Source(path, separator=separator)
    notes: list[str] = []
    (row,) = source.read(str(path), notes)
    assert isinstance(row, Row)
    assert (row.fields["q"], row.fields["a"]) == ("1", "2")
    assert notes == [f"separated by {name.split(' beside')[0]}"]


@pytest.mark.parametrize("separator", ["", ";;", "\n", '"'])
def test_an_impossible_separator_is_refused(separator: str, tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", "q,a\n1,2\n")
    with pytest.raises(DataError, match=r"`separator` is .* it must be one character"):
        list(read(Source(path, separator=separator)))


ENCODINGS = {
    "none such": ("utf-99", b"{}", "`encoding` is 'utf-99', which is no text encoding"),
    "no text encoding": ("base64", b"{}", "`encoding` is 'base64', which is no text encoding"),
    "against the mark": (
        "cp1251",
        "\ufeff{}".encode(),
        "byte order mark of UTF-8, but `encoding` is cp1251",
    ),
    "wrong": ("ascii", '{"q": "да"}'.encode(), "f.jsonl:1: not ascii"),
    "UTF-16 cut short": (
        None,
        '{"q": 1}'.encode("utf-16")[:-1],
        "not UTF-16: the file ends inside a character",
    ),
}


@pytest.mark.parametrize("case", ENCODINGS)
def test_a_wrong_encoding_is_refused(case: str, tmp_path: Path) -> None:
    encoding, content, reason = ENCODINGS[case]
    path = write(tmp_path / "f.jsonl", content)
    with pytest.raises(DataError, match=reason):
        list(read(Source(path, encoding=encoding)))


@pytest.mark.parametrize("line", [1, 2, 5000])
def test_the_error_names_the_line_of_a_wrong_byte(line: int, tmp_path: Path) -> None:
    content = b'{"q": "1"}\n' * (line - 1) + '{"q": "Почему деталь отклеилась?"}'.encode("cp1251")
    path = write(tmp_path / "f.jsonl", content)
    with pytest.raises(DataError, match=rf"jsonl:{line}: not UTF-8 but likely cp1251 \({{.q.: .П"):
        list(read(path))


@pytest.mark.parametrize("block", [1, 2, 7, 64])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_is_read_the_same_in_blocks_of_any_size(
    block: int, indent: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list = [{"q": 'да\\n"]},{' * n, "a": [n, {"b": None}]} for n in range(20)]
    values = [*rows, 12345, 1.5e10, True, "text", None]
    path = write(tmp_path / "f.json", json.dumps(values, ensure_ascii=False, indent=indent))
    whole = list(read(path))
    monkeypatch.setattr("data.readers.json_file.BLOCK", block)
    assert list(read(path)) == whole
    assert [row.fields for row in whole if isinstance(row, Row)] == rows
    assert len(whole) == len(values)


def test_a_list_is_never_entirely_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "f.json", json.dumps([{"q": "x" * 50}] * 500))
    monkeypatch.setattr("data.readers.json_file.BLOCK", 256)
    lengths = []
    decode = ObjectDecoder.raw_decode
    monkeypatch.setattr(
        ObjectDecoder,
        "raw_decode",
        lambda self, s, i: (lengths.append(len(s)), decode(self, s, i))[1],
    )
    assert len(list(read(path))) == 500
    assert max(lengths) < 1024
