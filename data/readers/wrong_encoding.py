"""Say where a file is not in its encoding, and in which one it likely is."""

import codecs
from pathlib import Path

import charset_normalizer

from data.messages import tr
from data.readers.compressed import BLOCK, open_bytes
from data.types import DataError, one_of

LIKELY_ENCODINGS = [
    *("cp1251", "cp1252", "koi8_r", "cp866", "cp1250", "cp1253", "cp1254"),
    *("shift_jis", "euc_jp", "gb18030", "big5", "euc_kr"),
]
"""Common encodings other than UTF-8; a longer list gives worse guesses."""
CERTAIN_BYTES = 40
"""Bytes beyond ASCII around a fault that make a guess certain, if only one reading is likely."""


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
                message = tr(
                    "{path}:{line}: not {encoding}",
                    path=path,
                    line=line,
                    encoding=_display_name(encoding),
                )
                line_start = good[good.rfind(b"\n") + 1 :]
                text = (line_start + rest[:4096]).decode(encoding, "replace")
                # Text in another encoding hardly ever decodes to letters of this one by chance:
                # mostly valid letters mean the right encoding with a damaged byte.
                if text.count("\ufffd") < sum(letter > "\x7f" for letter in text) / 2:
                    column = text.index("\ufffd") + 1
                    return WrongEncodingError(
                        tr(
                            "{message}: a damaged character in column {column}",
                            message=message,
                            column=column,
                        )
                    )
                return _guess_encodings(message, line_start, rest)
    return WrongEncodingError(
        tr(
            "{path}:{line}: not {encoding}: the file ends inside a character, so it may be cut off",
            path=path,
            line=line,
            encoding=_display_name(encoding),
        )
    )


def _guess_encodings(message: str, line_start: bytes, rest: bytes) -> WrongEncodingError:
    """Name the likely encodings, each with the faulty line as it reads in it, and advice."""
    sample = line_start + rest[:4096]
    line = line_start + rest.partition(b"\n")[0]
    likely: dict[str, charset_normalizer.CharsetMatch] = {}
    for match in charset_normalizer.from_bytes(sample, cp_isolation=LIKELY_ENCODINGS):
        likely.setdefault(line.decode(match.encoding, "replace").strip()[:60], match)
    if not likely:
        return WrongEncodingError(
            tr("{message}: save it as UTF-8, or set `encoding`", message=message)
        )
    (reading, best), *others = likely.items()
    enough = sum(byte > 127 for byte in sample) >= CERTAIN_BYTES
    certain = enough and all(_is_clearer(best, other) for _, other in others)
    shown = [f"{match.encoding} ({text})" for text, match in list(likely.items())[:2]]
    message = tr(
        "{message} but likely {readings}: {advice}",
        message=message,
        readings=one_of(shown),
        advice=advice(best.encoding),
    )
    return WrongEncodingError(message, best.encoding, certain, reading)


def _is_clearer(
    best: charset_normalizer.CharsetMatch, other: charset_normalizer.CharsetMatch
) -> bool:
    """Return whether a reading has far fewer odd characters, or far more of a language's."""
    if other.chaos > best.chaos + 0.05:
        return True
    return best.coherence > max(0.2, 2 * other.coherence)


def advice(encoding: str) -> str:
    """Return what to do about a file that is in an encoding."""
    return tr("set `encoding` to {encoding}, or save the file as UTF-8", encoding=encoding)


def _display_name(encoding: str) -> str:
    return encoding.removesuffix("-sig").upper() if encoding.startswith("utf") else encoding
