"""A file's bytes become text: gzip, byte order marks, and a refusal to guess an encoding."""

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

# A UTF-32 mark begins as a UTF-16 one does, so it is looked for first.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
LIKELY = [
    *("cp1251", "cp1252", "koi8_r", "cp866", "cp1250", "cp1253", "cp1254"),
    *("shift_jis", "euc_jp", "gb18030", "big5", "euc_kr"),
]
"""What texts that are not UTF-8 are written in; more would make the guess worse."""
BLOCK = 1 << 16


@contextmanager
def open_text(
    path: Path, encoding: str | None = None, newline: str | None = None
) -> Iterator[TextIO]:
    """A file as text; what goes wrong inside becomes one line on what to do.

    Args:
        path: The file; one that ends in ``.gz`` is unpacked as it is read.
        encoding: None for what its byte order mark says, and UTF-8 without one.
        newline: As in ``open``.

    Raises:
        DataError: The file cannot be read, or is not in that encoding.
    """
    try:
        with _open_bytes(path) as file:
            chosen = _encoding(path, file.peek(BLOCK)[:BLOCK], encoding)
            yield TextIOWrapper(file, encoding=chosen, newline=newline)
    except UnicodeDecodeError:
        raise DataError(_misfit(path, chosen)) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: not a whole gzip file: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None


def _open_bytes(path: Path) -> BufferedReader:
    file: BinaryIO = path.open("rb")
    if path.suffix.lower() == ".gz":
        file = gzip.GzipFile(fileobj=file)  # type: ignore[assignment]
    return BufferedReader(file, BLOCK)  # type: ignore[arg-type]


def _encoding(path: Path, head: bytes, asked: str | None) -> str:
    if asked:
        try:
            codecs.lookup(asked)
            "".encode(asked)
        except LookupError:
            raise DataError(
                f"data.encoding is {asked!r}, which is none; utf-8, cp1251, utf-16 are some"
            ) from None
    marked = next((name for mark, name in MARKS.items() if head.startswith(mark)), None)
    if marked:
        plain = marked.removesuffix("-sig")
        if asked and not codecs.lookup(asked).name.startswith(plain):
            raise DataError(
                f"{path} begins with the mark of {plain.upper()}, but data.encoding is {asked}: "
                "leave data.encoding away"
            )
        return marked
    # Latin letters in UTF-16 are letter and NUL in turn, which is valid UTF-8 too.
    if not asked and head.count(0) * 4 > len(head):
        likely = "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"
        raise DataError(f"{path} holds NUL bytes, so it is likely {likely}: {_way_out(likely)}")
    return asked or "utf-8"


def _misfit(path: Path, encoding: str) -> str:
    """What to say of a file that is not in its encoding; reads it again up to the first fault."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line = 1
    with _open_bytes(path) as file:
        while block := file.read(BLOCK):
            try:
                line += decoder.decode(block).count("\n")
            except UnicodeDecodeError as error:
                good, rest = error.object[: error.start], error.object[error.start :]
                line += good.decode(encoding, "ignore").count("\n")
                said = f"{path}:{line}: not {_name(encoding)}"
                begin = good[good.rfind(b"\n") + 1 :]
                text = (begin + rest[:4096]).decode(encoding, "replace")
                # Hardly any text of another encoding is letters of this one by accident.
                if text.count("\ufffd") < sum(letter > "\x7f" for letter in text) / 2:
                    return f"{said}: a damaged character in column {text.index(chr(0xFFFD)) + 1}"
                return said + _guess(begin, rest)
    return f"{path}:{line}: not {_name(encoding)}: it ends within a character; mend its end"


def _guess(begin: bytes, rest: bytes) -> str:
    """The likely encodings, each with how the faulty line reads in it."""
    found = charset_normalizer.from_bytes(begin + rest[:4096], cp_isolation=LIKELY)
    line = begin + rest.partition(b"\n")[0]
    readings: dict[str, str] = {}
    for match in found:
        readings.setdefault(line.decode(match.encoding, "replace").strip()[:60], match.encoding)
    if not readings:
        return "; save it as UTF-8, or set data.encoding"
    likely = [f"{name} ({text})" for text, name in list(readings.items())[:2]]
    return f" but likely {' or '.join(likely)}: {_way_out(next(iter(readings.values())))}"


def _way_out(likely: str) -> str:
    return f"set data.encoding to {likely}, or save it as UTF-8"


def _name(encoding: str) -> str:
    return encoding.removesuffix("-sig").upper() if encoding.startswith("utf") else encoding
