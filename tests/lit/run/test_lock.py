"""A folder is one process's until that process ends, and its workers hold nothing."""

import errno
import os
from pathlib import Path

import pytest
from filelock import FileLock

from lit.run.folder import RunFolder
from lit.run.lock import LOCK, FolderLock, is_locked
from lit.run.ownership import present
from lora.config import ConfigError


def test_a_folder_is_locked_once_and_the_lock_leaves_no_file(tmp_path: Path) -> None:
    with FolderLock(tmp_path):
        assert is_locked(tmp_path)
        with pytest.raises(ConfigError, match="another run is writing to"), FolderLock(tmp_path):
            pass
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    assert not list(tmp_path.iterdir())


def test_the_lock_of_a_killed_process_is_free_while_its_workers_live(tmp_path: Path) -> None:
    forked, end = os.pipe(), os.pipe()
    if not (killed := os.fork()):
        FolderLock(tmp_path).__enter__()
        if os.fork():
            os.read(forked[0], 1)
            os._exit(0)
        os.write(forked[1], b"x")
        os.read(end[0], 1)
        os._exit(0)
    os.waitpid(killed, 0)
    assert (tmp_path / LOCK).exists()
    assert not is_locked(tmp_path)
    with FolderLock(tmp_path):
        pass
    os.write(end[1], b"x")
    assert not list(tmp_path.iterdir())


def test_a_lock_file_that_a_killed_run_left_is_no_run_and_no_leftover(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / LOCK).touch()
    assert not present(tmp_path)
    with RunFolder(tmp_path).claimed(resume=False, overwrite=False):
        assert is_locked(tmp_path)
    assert not list(tmp_path.iterdir())
    assert not capsys.readouterr().out


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named_and_used(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fail(lock: FileLock) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(FileLock, "acquire", fail)
    with FolderLock(tmp_path):
        assert is_locked(tmp_path)
    assert f"cannot be locked ({os.strerror(number)})" in capsys.readouterr().out


def test_a_link_in_the_place_of_the_lock_is_neither_followed_nor_removed(tmp_path: Path) -> None:
    target, folder = tmp_path / "mine", tmp_path / "run"
    folder.mkdir()
    (folder / LOCK).symlink_to(target)
    with FolderLock(folder):
        assert not target.exists()
    assert (folder / LOCK).is_symlink()
