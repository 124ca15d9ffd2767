"""The output of a command appears completely or not at all."""

from pathlib import Path

import pytest

from lit.run.output import check_free, creating
from lora.config import ConfigError


def write(path: Path) -> None:
    path.mkdir()
    (path / "weights").write_text("all")


@pytest.mark.parametrize("existing", [False, True])
def test_a_folder_appears_at_the_end(existing: bool, tmp_path: Path) -> None:
    path = tmp_path / "new" / "model"
    if existing:
        path.mkdir(parents=True)
    with creating(path) as new:
        write(new)
        assert not path.exists() or not any(path.iterdir())
    assert (path / "weights").read_text() == "all"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_appears_at_the_end(tmp_path: Path) -> None:
    with creating(tmp_path / "lora.gguf") as new:
        new.write_text("all")
    assert (tmp_path / "lora.gguf").read_text() == "all"


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with creating(tmp_path / "model") as new:
            write(new)
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert not list(tmp_path.iterdir())


def test_a_path_that_is_taken_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "model"

    def write_twice() -> None:
        with creating(path) as new:
            write(new)
            path.write_text("of another command")

    with pytest.raises(ConfigError, match="already exists"):
        write_twice()
    assert path.read_text() == "of another command"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["file", "folder with a file", "broken link"])
def test_a_taken_path_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model"
    if kind == "file":
        path.touch()
    elif kind == "folder with a file":
        write(path)
    else:
        path.symlink_to(tmp_path / "missing")
    with pytest.raises(ConfigError, match=f"{path} already exists: choose another path"):
        check_free(path)
