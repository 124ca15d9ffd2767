"""Find the encoding of a text file, and say what it likely is where it is not the expected one."""

import codecs
import zlib
from pathlib import Path
from typing import NamedTuple

from data.messages import tr
from data.readers.compressed import BLOCK, open_bytes
from data.readers.wrong_encoding import WrongEncodingError, advice, wrong_encoding
from data.types import DataError

# UTF-32 comes first: its mark begins with the one of UTF-16.
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
AUTO = "auto"
"""As an encoding: the one that the file is certainly in."""


class FoundEncoding(NamedTuple):
    """The encoding that a file is in."""

    encoding: str | None
    """None for UTF-8, or what the byte order mark says."""
    note: str = ""
    """What was found, if it is not that."""


def find_encoding(path: Path) -> FoundEncoding:
    """Return the encoding of a file that may be in another one than UTF-8.

    Raises:
        WrongEncodingError: It is not UTF-8, and more than one other encoding is likely.
        DataError: The file cannot be read.
    """
    try:
        check_encoding(path, None)
    except WrongEncodingError as error:
        if error.certain:
            return FoundEncoding(
                error.guess,
                tr("read as {guess}: {reading}", guess=error.guess, reading=error.reading),
            )
        raise
    return FoundEncoding(None)


def check_encoding(path: Path, encoding: str | None) -> None:
    """Check that a whole file is in its encoding; takes a second per gigabyte.

    Raises:
        WrongEncodingError: It is not.
        DataError: The file cannot be read, or the encoding is unknown.
    """
    try:
        with open_bytes(path) as file:
            chosen = choose_encoding(path, file.peek(BLOCK)[:BLOCK], encoding)
            decoder = codecs.getincrementaldecoder(chosen)()
            while block := file.read(1 << 20):
                decoder.decode(block)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise wrong_encoding(path, chosen) from None
    except (EOFError, zlib.error, OSError):
        return  # whoever reads it says so


def choose_encoding(path: Path, head: bytes, encoding: str | None) -> str:
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
                tr(
                    "`encoding` is {encoding!r}, which is no text encoding: choose for "
                    "example utf-8, cp1251 or utf-16",
                    encoding=encoding,
                )
            ) from None
    marked = next((name for mark, name in BYTE_ORDER_MARKS.items() if head.startswith(mark)), None)
    if marked:
        plain = marked.removesuffix("-sig")
        if encoding and not codecs.lookup(encoding).name.startswith(plain):
            raise DataError(
                tr(
                    "{path} begins with the byte order mark of {mark}, but `encoding` is "
                    "{encoding}: leave `encoding` out",
                    path=path,
                    mark=plain.upper(),
                    encoding=encoding,
                )
            )
        return marked
    # In UTF-16 every second byte of Latin text is NUL, which is valid UTF-8 too.
    if not encoding and head.count(0) * 4 > len(head):
        likely = "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"
        message = tr(
            "{path} contains NUL bytes, so it is likely {likely}: {advice}",
            path=path,
            likely=likely,
            advice=advice(likely),
        )
        raise WrongEncodingError(message, likely, certain=True)
    return encoding or "utf-8"
