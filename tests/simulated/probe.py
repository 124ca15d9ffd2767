"""What a module of the project might do that works on Linux and not on Windows."""

import builtins
import json
import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path


def _import(name: str) -> Callable[[Path], object]:
    # Not importlib.import_module: the names are looked up as by an import statement here.
    return lambda file: builtins.__import__(name, globals())


def _call_os(name: str) -> Callable[[Path], object]:
    return lambda file: getattr(os, name)


def _signal(file: Path) -> None:
    from signal import SIGKILL

    assert SIGKILL


def _replace_open(file: Path) -> None:
    with file.open("rb"):
        file.with_name("new").touch()
        file.with_name("new").replace(file)


def _remove_mapped(file: Path) -> None:
    with file.open("rb") as opened:
        mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    file.unlink()
    mapped.close()


def _move_folder_of_open(file: Path) -> None:
    folder = file.parent / "folder"
    folder.mkdir()
    with (folder / "file").open("wb"):
        folder.rename(file.parent / "moved")


def _rename_onto_file(file: Path) -> None:
    file.with_name("new").touch()
    file.with_name("new").rename(file)


def _flush_read_only(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _open_folder(file: Path) -> None:
    os.close(os.open(file.parent, os.O_RDONLY))


def _colon(file: Path) -> None:
    file.with_name("12:30").touch()


def _line_end(file: Path) -> None:
    file.write_text("a\nb\n")
    assert file.read_bytes() == b"a\nb\n"


def _utf8(file: Path) -> None:
    file.write_text("да")


def _fork_context(file: Path) -> None:
    import multiprocessing

    multiprocessing.get_context("fork")


def _linux(file: Path) -> None:
    assert sys.platform == "linux"


PROBES: dict[str, Callable[[Path], object]] = {
    **{f"import {name}": _import(name) for name in ("fcntl", "resource", "pwd")},
    **{
        f"os.{name}": _call_os(name)
        for name in ("fork", "register_at_fork", "posix_fallocate", "sysconf", "sched_getaffinity")
    },
    "SIGKILL": _signal,
    "replace an open file": _replace_open,
    "remove a mapped file": _remove_mapped,
    "move the folder of an open file": _move_folder_of_open,
    "rename onto a file": _rename_onto_file,
    "flush a file opened for reading": _flush_read_only,
    "open a folder": _open_folder,
    "a colon in a name": _colon,
    "a text file's line ends": _line_end,
    "Cyrillic in the default encoding": _utf8,
    "fork as start method": _fork_context,
    "sys.platform": _linux,
}


def run_probes(folder: Path) -> str:
    """Return what each probe raised, or an empty text, as JSON."""
    raised = {}
    for name, probe in PROBES.items():
        own = folder / str(len(raised))
        own.mkdir()
        (own / "file").write_bytes(b"content")
        try:
            probe(own / "file")
            raised[name] = ""
        except Exception as error:
            raised[name] = type(error).__name__
    return json.dumps(raised)
