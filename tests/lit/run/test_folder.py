"""A run's folder: which files a run removes, and when it refuses to start."""

from pathlib import Path

import pytest

from lit.run.folder import RunFolder
from lit.run.ownership import write_marker
from lora.config import ConfigError
from lora.storage.files import PREFIX, temporary_path


def test_only_temporary_files_of_this_project_are_removed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write_marker(tmp_path)
    for path in (folder.checkpoints, folder.adapter):
        path.mkdir()
    kept = [
        *(tmp_path / name for name in (".gitignore", ".adapter-abcd1234", ".last.ckpt.abcd1234")),
        folder.checkpoints / "step-1.ckpt",
        folder.adapter / f"a{PREFIX}",
    ]
    temporary = [temporary_path(path) for path in (folder.config, folder.last)]
    for path in (*kept, *temporary):
        path.touch()
    inside = temporary_path(folder.adapter / "tokenizer")
    inside.mkdir()
    (inside / "tokenizer.json").touch()
    with folder.claimed(resume=True, overwrite=False):
        pass
    assert all(path.exists() for path in kept)
    assert not list(tmp_path.rglob(f"{PREFIX}*"))


def test_a_refused_run_leaves_no_new_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "run"

    def fail() -> None:
        with RunFolder(path).claimed(resume=False, overwrite=False):
            assert path.is_dir()
            raise ValueError("bad rows")

    with pytest.raises(ValueError, match="bad rows"):
        fail()
    assert not path.exists()


@pytest.mark.parametrize("result", ["adapter", "checkpoints", "metrics.csv"])
def test_a_folder_with_a_run_is_refused_by_default(result: str, tmp_path: Path) -> None:
    write_marker(tmp_path)
    name = {"adapter": "adapter/README.md", "checkpoints": "checkpoints/last.ckpt"}.get(result)
    path = tmp_path / (name or result)
    path.parent.mkdir(exist_ok=True)
    path.touch()
    folder = RunFolder(tmp_path)
    message = rf"already holds a run \({result}\). Resume it with --ckpt_path last"
    with pytest.raises(ConfigError, match=message), folder.claimed(False, False):
        pass
    for resume, overwrite in ((True, False), (False, True)):
        with folder.claimed(resume, overwrite):
            pass
    assert path.exists()


def test_a_file_as_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.touch()
    with pytest.raises(ConfigError, match="is a file"), RunFolder(path).claimed(False, False):
        pass


@pytest.mark.parametrize("resume", [False, True])
def test_only_a_new_run_removes_the_results_of_the_one_before(resume: bool, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    results = (folder.config, folder.last, folder.adapter / "adapter_model.safetensors")
    for path in (*results, folder.picture):
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    folder.prepare(resume=resume)
    assert [path.exists() for path in results] == [resume] * 3
    assert not folder.picture.exists()
