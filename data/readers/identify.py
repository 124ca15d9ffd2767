"""What a file is, by its first bytes: its name may say something else."""

import json
import re
import zipfile
import zlib
from pathlib import Path

from data.messages import tr, tr_mark
from data.readers.compressed import open_bytes
from data.readers.encoding import BYTE_ORDER_MARKS
from data.types import DataError

TEXT_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv")
SUFFIXES = (*TEXT_SUFFIXES, ".parquet", ".xlsx")
HEAD = 1 << 16
"""Bytes that decide what a file is."""
OTHER_FILES = {
    b"\xd0\xcf\x11\xe0": tr_mark(
        "an old Office file (.xls or .doc): save its table as CSV UTF-8, and give that file, or as "
        ".xlsx"
    ),
    b"%PDF": tr_mark("a PDF: copy its text into a table of questions and answers"),
    b"version https://git-lfs": tr_mark(
        "a Git LFS pointer, not the file itself: run `git lfs pull`, or download the file"
    ),
    b"SQLite format 3": tr_mark("a database: save its table as CSV UTF-8, and give that file"),
    b"{\\rtf": tr_mark("an RTF document: save its table as CSV UTF-8, and give that file"),
    b"Rar!": tr_mark("a RAR archive: unpack it, and give the folder"),
    b"7z\xbc\xaf": tr_mark("a 7z archive: unpack it, and give the folder"),
    b"BZh": tr_mark("compressed by bzip2: unpack it, or compress it by gzip"),
    b"\xfd7zXZ": tr_mark("compressed by xz: unpack it, or compress it by gzip"),
    b"(\xb5/\xfd": tr_mark("compressed by zstd: unpack it, or compress it by gzip"),
}
"""What a file is that begins with these bytes."""
WEB_PAGE = re.compile(r"\s*<(!doctype|html|\?xml|head|body)\b", re.IGNORECASE)
SCALAR = r'"(?:[^"\\]|\\.)*"|[-\d.eE+]+|true|false|null'
WRAPPED = re.compile(
    rf'\s*\{{\s*(?:"[^"]*"\s*:\s*(?:{SCALAR})\s*,\s*)*'
    r'"(data|rows|examples|items|records|samples|instances|train|dataset)"\s*:\s*(?=\[)'
)
"""The beginning of one object that holds the rows in a list."""


def suffix_of(name: str) -> str:
    """Return the suffix that tells how a file is written, without ``.gz``; empty if unknown."""
    path = Path(name.lower())
    if path.suffix == ".gz" and Path(path.stem).suffix in TEXT_SUFFIXES:
        return Path(path.stem).suffix
    return path.suffix if path.suffix in SUFFIXES else ""


def identify(path: Path) -> str:
    """Return how a file is written, as the suffix of such files.

    Raises:
        DataError: It is a kind of file that cannot be read; the message says what to do.
    """
    named = suffix_of(path.name)
    try:
        with open_bytes(path) as file:
            head = file.read(HEAD)
    except (OSError, EOFError, zlib.error):
        return named  # its reader says what is wrong
    for magic, what in OTHER_FILES.items():
        if head.startswith(magic):
            raise DataError(tr("{path} is {what}", path=path, what=tr(what)))
    if head.startswith(b"PK\x03\x04"):
        return _identify_zip(path)
    if head.startswith(b"PAR1"):
        return ".parquet"
    if named not in TEXT_SUFFIXES:
        return named
    text = _decode(head)
    if WEB_PAGE.match(text):
        raise DataError(tr("{path} is a web page, not data: download the file itself", path=path))
    if named in (".json", ".jsonl"):
        return _json_layout(text, named)
    if re.match(r'\s*(\{\s*"|\[\s*\{)', text):
        return _json_layout(text, ".jsonl")
    return named


def _decode(head: bytes) -> str:
    """Return the beginning of a text; what matters here is ASCII in every encoding but UTF-16."""
    mark = next((mark for mark in BYTE_ORDER_MARKS if head.startswith(mark)), b"")
    encoding = BYTE_ORDER_MARKS.get(mark, "utf-8")
    return head.decode(encoding, "ignore").lstrip("\ufeff")


def _identify_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise DataError(
            tr("{path} is a damaged zip archive: {error}", path=path, error=error)
        ) from None
    if "xl/workbook.xml" in names:
        return ".xlsx"
    if "xl/workbook.bin" in names:
        raise DataError(
            tr(
                "{path} is a binary workbook (.xlsb): save its table as CSV UTF-8, and give that "
                "file, or as .xlsx",
                path=path,
            )
        )
    if "word/document.xml" in names or "mimetype" in names:
        raise DataError(
            tr(
                "{path} is an Office document: save its table as CSV UTF-8, and give that file",
                path=path,
            )
        )
    shown = ", ".join(sorted(names)[:3])
    raise DataError(
        tr(
            "{path} is a zip archive ({names}): unpack it, and give the file or folder",
            path=path,
            names=shown,
        )
    )


def _json_layout(text: str, named: str) -> str:
    """Return ``.jsonl`` for one value per line, and ``.json`` for a list or objects over lines."""
    text = text.lstrip()
    line, ended, rest = text.partition("\n")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if WRAPPED.match(text) and (value is None or not rest.strip()):
        return ".json"
    if text.startswith("["):
        if named == ".json":
            return named
        whole = isinstance(value, list)
        rows = bool(value) and all(isinstance(row, dict) for row in value or []) if whole else None
        return ".json" if rows or (rows is None and re.match(r"\[\s*[{\]]", text)) else ".jsonl"
    if isinstance(value, dict):
        return ".jsonl" if rest.strip() else named
    if text.startswith("{") and ended and _spans_lines(text):
        return ".json"
    return named


def _spans_lines(text: str) -> bool:
    """Return whether a text begins with an object that is written over several lines."""
    try:
        json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError as error:
        # Cut off by the end of what was read.
        return error.pos >= len(text) - 1 and len(text) > HEAD // 8
    except (ValueError, RecursionError):
        return False
    return True
