"""Find the encoding of a text file, and say what it likely is where it is not the expected one."""

import codecs
import gzip
import zlib
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, NamedTuple

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
GZIP = b"\x1f\x8b"
AUTO = "auto"
"""As an encoding: the one that the file is certainly in."""
CERTAIN_BYTES = 40
"""Bytes beyond ASCII around a fault that make a guess certain, if only one reading is likely."""


class FoundEncoding(NamedTuple):
    """The encoding that a file is in."""

    encoding: str | None
    """None for UTF-8, or what the byte order mark says."""
    note: str = ""
    """What was found, if it is not that."""


class WrongEncodingError(DataError):
    """A file is not in its encoding.

    Args:
        message: The file and line, and what it likely is.
        guess: The most likely encoding; None if nothing is likely.
        certain: Whether no other reading is likely, and enough of the file was looked at.
        reading: The faulty line as it reads in that encoding.
    """

    def __init__(
        self, message: str, guess: str | None = None, certain: bool = False, reading: str = ""
    ) -> None:
        super().__init__(message)
        self.guess, self.certain, self.reading = guess, certain, reading


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
            return FoundEncoding(error.guess, f"read as {error.guess}: {error.reading}")
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


def open_bytes(path: Path) -> BufferedReader:
    """Open a file, decompressed if gzip compressed it or its name says so."""
    file: BinaryIO = path.open("rb")
    compressed = file.read(2) == GZIP
    file.seek(0)
    if compressed or path.suffix.lower() == ".gz":
        file = gzip.GzipFile(fileobj=file)  # type: ignore[assignment]
    return BufferedReader(file, BLOCK)  # type: ignore[arg-type]


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
        message = f"{path} contains NUL bytes, so it is likely {likely}: {_advice(likely)}"
        raise WrongEncodingError(message, likely, certain=True)
    return encoding or "utf-8"


def wrong_encoding(path: Path, encoding: str) -> WrongEncodingError:
    """Read a file again up to the first byte that is not in its encoding; return the error."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line = 1
    with open_bytes(path) as file:
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
                    column = text.index("\ufffd") + 1
                    return WrongEncodingError(f"{message}: a damaged character in column {column}")
                return _guess_encodings(message, line_start, rest)
    return WrongEncodingError(
        f"{path}:{line}: not {_display_name(encoding)}: the file ends inside a character, so it "
        "may be cut off"
    )


def _guess_encodings(message: str, line_start: bytes, rest: bytes) -> WrongEncodingError:
    """Name the likely encodings, each with the faulty line as it reads in it, and advice."""
    sample = line_start + rest[:4096]
    line = line_start + rest.partition(b"\n")[0]
    likely: dict[str, charset_normalizer.CharsetMatch] = {}
    for match in charset_normalizer.from_bytes(sample, cp_isolation=LIKELY_ENCODINGS):
        likely.setdefault(line.decode(match.encoding, "replace").strip()[:60], match)
    if not likely:
        return WrongEncodingError(f"{message}: save it as UTF-8, or set `encoding`")
    (reading, best), *others = likely.items()
    enough = sum(byte > 127 for byte in sample) >= CERTAIN_BYTES
    certain = enough and all(_is_clearer(best, other) for _, other in others)
    shown = [f"{match.encoding} ({text})" for text, match in list(likely.items())[:2]]
    message += f" but likely {' or '.join(shown)}: {_advice(best.encoding)}"
    return WrongEncodingError(message, best.encoding, certain, reading)


def _is_clearer(
    best: charset_normalizer.CharsetMatch, other: charset_normalizer.CharsetMatch
) -> bool:
    """Return whether a reading has far fewer odd characters, or far more of a language's."""
    if other.chaos > best.chaos + 0.05:
        return True
    return best.coherence > max(0.2, 2 * other.coherence)


def _advice(encoding: str) -> str:
    return f"set `encoding` to {encoding}, or save the file as UTF-8"


def _display_name(encoding: str) -> str:
    return encoding.removesuffix("-sig").upper() if encoding.startswith("utf") else encoding
