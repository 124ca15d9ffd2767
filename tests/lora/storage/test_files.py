"""Files are replaced completely or not at all, and their modes follow the umask."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from lora.storage.files import PREFIX, replacing, temporary_folder, temporary_path, write_text


@pytest.fixture(params=[0o077, 0o022])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    old = os.umask(request.param)
    yield request.param
    os.umask(old)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_temporary_path_is_beside_the_file_and_keeps_its_ending(tmp_path: Path) -> None:
    path = temporary_path(tmp_path / "rows.jsonl")
    assert path.parent == tmp_path
    assert path.name.startswith(PREFIX)
    assert path.suffix == ".jsonl"


@pytest.mark.parametrize("existing", [False, True])
def test_a_text_is_written_as_it_is(existing: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    if existing:
        path.write_text("old, and longer than the new text")
    write_text(path, "новый\r\n")
    assert path.read_bytes() == "новый\r\n".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_keeps_the_old_file_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as new:
            new.write_text("half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_mode_of_a_file_follows_the_umask_whatever_the_writer_sets(
    umask: int, tmp_path: Path
) -> None:
    path = tmp_path / "a.txt"
    with replacing(path) as new:
        new.write_text("new")
        new.chmod(0o600)
    assert mode(path) == 0o666 & ~umask


def test_a_temporary_folder_is_beside_the_path_follows_the_umask_and_is_removed(
    umask: int, tmp_path: Path
) -> None:
    def fail() -> None:
        with temporary_folder(tmp_path / "model") as folder:
            assert folder.parent == tmp_path
            assert folder.name.startswith(PREFIX)
            assert mode(folder) == 0o777 & ~umask
            (folder / "weights").write_text("half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert not list(tmp_path.iterdir())
