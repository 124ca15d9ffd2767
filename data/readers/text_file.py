"""Open a file as text: gzip, byte order marks, and an error instead of a guessed encoding."""

import codecs
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import BinaryIO, TextIO

import charset_normalizer

from data.types import DataError

# UTF-32 comes first: its mark begins with the one of UTF-16.
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
LIKELY_ENCODINGS = [
    *("cp1251", "cp1252", "koi8_r", "cp866", "cp1250", "cp1253", "cp1254"),
    *("shift_jis", "euc_jp", "gb18030", "big5", "euc_kr"),
]
"""Common encodings other than UTF-8; a longer list gives worse guesses."""
BLOCK = 1 << 16
MAX_ROW = 1 << 24
"""Characters of one row, about four million tokens; a longer one is bad and is never held whole."""
TOO_LONG = f"longer than {MAX_ROW:,} characters"


@contextmanager
def open_text(
    path: Path, encoding: str | None = None, newline: str | None = None
) -> Iterator[TextIO]:
    """Open a file as text; errors while reading become one line that says what to do.

    Args:
        path: The file; ``.gz`` files are decompressed while they are read.
        encoding: None for the encoding of the byte order mark, or UTF-8 without one.
        newline: As in ``open``.

    Raises:
        DataError: The file cannot be read, or is not in that encoding.
    """
    try:
        with _open_bytes(path) as file:
            chosen = _choose_encoding(path, file.peek(BLOCK)[:BLOCK], encoding)
            yield TextIOWrapper(file, encoding=chosen, newline=newline)
    except UnicodeDecodeError:
        raise DataError(_describe_wrong_encoding(path, chosen)) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: not a complete gzip file: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None


def bounded_lines(file: TextIO) -> Iterator[str]:
    """Yield the lines of a file; one longer than ``MAX_ROW`` is cut there, and has no newline."""
    while line := file.readline(MAX_ROW + 1):
        rest = line
        while len(rest) > MAX_ROW and not rest.endswith("\n"):
            rest = file.readline(MAX_ROW + 1)
        yield line


def _open_bytes(path: Path) -> BufferedReader:
    file: BinaryIO = path.open("rb")
    if path.suffix.lower() == ".gz":
        file = gzip.GzipFile(fileobj=file)  # type: ignore[assignment]
    return BufferedReader(file, BLOCK)  # type: ignore[arg-type]


def _choose_encoding(path: Path, head: bytes, encoding: str | None) -> str:
    """Return the encoding of a file that begins with these bytes.

    Raises:
        DataError: ``encoding`` is unknown or contradicts the byte order mark, or the file looks
            like UTF-16 without a mark.
    """
    if encoding:
        try:
            codecs.lookup(encoding)
            "".encode(encoding)
        except LookupError:
            raise DataError(
                f"`encoding` is {encoding!r}, which is no text encoding: choose for example utf-8, "
                "cp1251 or utf-16"
            ) from None
    marked = next((name for mark, name in BYTE_ORDER_MARKS.items() if head.startswith(mark)), None)
    if marked:
        plain = marked.removesuffix("-sig")
        if encoding and not codecs.lookup(encoding).name.startswith(plain):
            raise DataError(
                f"{path} begins with the byte order mark of {plain.upper()}, but `encoding` is "
                f"{encoding}: leave `encoding` out"
            )
        return marked
    # In UTF-16 every second byte of Latin text is NUL, which is valid UTF-8 too.
    if not encoding and head.count(0) * 4 > len(head):
        likely = "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"
        raise DataError(f"{path} contains NUL bytes, so it is likely {likely}: {_advice(likely)}")
    return encoding or "utf-8"


def _describe_wrong_encoding(path: Path, encoding: str) -> str:
    """Read a file again up to the first byte that is not in its encoding; return the message."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line = 1
    with _open_bytes(path) as file:
        while block := file.read(BLOCK):
            try:
                line += decoder.decode(block).count("\n")
            except UnicodeDecodeError as error:
                good, rest = error.object[: error.start], error.object[error.start :]
                line += good.decode(encoding, "ignore").count("\n")
                message = f"{path}:{line}: not {_display_name(encoding)}"
                line_start = good[good.rfind(b"\n") + 1 :]
                text = (line_start + rest[:4096]).decode(encoding, "replace")
                # Text in another encoding hardly ever decodes to letters of this one by chance:
                # mostly valid letters mean the right encoding with a damaged byte.
                if text.count("\ufffd") < sum(letter > "\x7f" for letter in text) / 2:
                    return f"{message}: a damaged character in column {text.index(chr(0xFFFD)) + 1}"
                return message + _guess_encodings(line_start, rest)
    return (
        f"{path}:{line}: not {_display_name(encoding)}: the file ends inside a character, so it "
        "may be cut off"
    )


def _guess_encodings(line_start: bytes, rest: bytes) -> str:
    """Return the likely encodings, each with the faulty line as it reads in it, and advice."""
    matches = charset_normalizer.from_bytes(line_start + rest[:4096], cp_isolation=LIKELY_ENCODINGS)
    line = line_start + rest.partition(b"\n")[0]
    readings: dict[str, str] = {}
    for match in matches:
        readings.setdefault(line.decode(match.encoding, "replace").strip()[:60], match.encoding)
    if not readings:
        return ": save it as UTF-8, or set `encoding`"
    likely = [f"{name} ({text})" for text, name in list(readings.items())[:2]]
    return f" but likely {' or '.join(likely)}: {_advice(next(iter(readings.values())))}"


def _advice(encoding: str) -> str:
    return f"set `encoding` to {encoding}, or save the file as UTF-8"


def _display_name(encoding: str) -> str:
    return encoding.removesuffix("-sig").upper() if encoding.startswith("utf") else encoding
