"""Open a file that gzip may have compressed."""

import gzip
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

BLOCK = 1 << 16
GZIP = b"\x1f\x8b"


def open_bytes(path: Path) -> BufferedReader:
    """Open a file, decompressed if gzip compressed it or its name says so."""
    file: BinaryIO = path.open("rb")
    compressed = file.read(2) == GZIP
    file.seek(0)
    if compressed or path.suffix.lower() == ".gz":
        file = gzip.GzipFile(fileobj=file)  # type: ignore[assignment]
    return BufferedReader(file, BLOCK)  # type: ignore[arg-type]
