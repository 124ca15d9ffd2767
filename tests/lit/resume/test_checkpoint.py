"""Checkpoint files are written completely or not at all, and loaded without running code."""

import os
import pickle
from pathlib import Path

import pytest
import torch

from lit.resume.checkpoint import AtomicCheckpointIO, check_space
from lora.config import ConfigError
from tests.adversary.test_user_files import limited_files

CONTENT = {"state_dict": {"lora_A": torch.arange(6.0).view(2, 3)}, "global_step": 7, "loops": {}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A complete checkpoint in a new folder."""
    path = tmp_path / "new" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(CONTENT, path)
    return path


def test_a_saved_checkpoint_is_loaded(file):
    loaded = AtomicCheckpointIO().load_checkpoint(file)
    assert torch.equal(loaded["state_dict"].pop("lora_A"), CONTENT["state_dict"]["lora_A"])
    assert loaded == {"state_dict": {}, "global_step": 7, "loops": {}}
    assert {path.name for path in file.parent.iterdir()} == {file.name, "manifest.json"}


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("moment", ["torch.save", "os.fsync", "os.replace"])
def test_a_failed_save_keeps_the_old_file_and_leaves_no_temporary_file(
    file, error, moment, monkeypatch
):
    before = file.read_bytes()

    def fail(*args: object) -> None:
        if moment == "torch.save":
            args[1].write(b"half a file")
        raise error("stopped")

    monkeypatch.setattr(moment, fail)
    with pytest.raises(error, match="stopped"):
        AtomicCheckpointIO().save_checkpoint({"global_step": 8}, file)
    assert file.read_bytes() == before
    assert {path.name for path in file.parent.iterdir()} == {file.name, "manifest.json"}


@pytest.mark.parametrize(
    "url", ["https://example.com/last.ckpt", "s3://bucket/last.ckpt", "file:///tmp/last.ckpt"]
)
def test_a_url_is_refused(url, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("it is opened"))
    with pytest.raises(ConfigError, match=f"{url}: .*not loaded from the network"):
        AtomicCheckpointIO().load_checkpoint(url)


class Canary:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("save", [torch.save, pickle.dump])
@pytest.mark.parametrize("weights_only", [None, False])
def test_code_in_a_checkpoint_does_not_run(save, weights_only, tmp_path):
    path, created = tmp_path / "evil.ckpt", tmp_path / "it ran"
    with path.open("wb") as target:
        save({"state_dict": {}, "payload": Canary(created)}, target)
    with pytest.raises(ConfigError, match=str(path)):
        AtomicCheckpointIO().load_checkpoint(path, weights_only=weights_only)
    assert not created.exists()
    with path.open("rb") as source:
        torch.load(source, weights_only=False) if save is torch.save else pickle.load(source)
    assert created.exists()


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_cut_file_is_refused_by_name(file, share):
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ConfigError, match=f"{file} is not a complete checkpoint"):
        AtomicCheckpointIO().load_checkpoint(file)


def test_a_missing_file_raises_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")


@pytest.mark.parametrize("reserves", [True, False])
def test_a_size_over_the_limit_for_files_is_found_before_training(
    reserves, tmp_path, monkeypatch
) -> None:
    if not reserves:
        monkeypatch.delattr(os, "posix_fallocate")
    check_space(tmp_path, 1000, files=2)
    with limited_files(1000), pytest.raises(OSError, match="no room for a checkpoint of 1001"):
        check_space(tmp_path, 1001, files=2)
    with pytest.raises(OSError, match="MB are free, and 2 checkpoints need"):
        check_space(tmp_path, 10**18, files=2)
    assert not list(tmp_path.iterdir())
