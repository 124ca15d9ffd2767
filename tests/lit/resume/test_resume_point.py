"""Which checkpoint a run resumes from."""

import os
from pathlib import Path

import pytest
import torch

from lit.resume.resume_point import CHECKPOINT_KEY, ResumePoint
from lit.run.folder import RunFolder
from lora.config import ConfigError


def save(path: Path, step: int, **own: object) -> None:
    path.parent.mkdir(exist_ok=True)
    lists: dict[str, list] = {"optimizer_states": [], "lr_schedulers": []}
    content = {"state_dict": {}, "callbacks": {}, "loops": {"fit_loop": {"at": step}}, **lists}
    torch.save(content | {"global_step": step, CHECKPOINT_KEY: own}, path)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run's folder with checkpoints of steps 9, 12 and 10; the one of step 10 is the newest."""
    folder = RunFolder(tmp_path)
    for seconds, step in enumerate((9, 12, 10)):
        path = folder.checkpoints / f"step-{step}.ckpt"
        save(path, step)
        os.utime(path, (seconds, seconds))
    return folder


def test_the_last_checkpoint_is_used_if_it_is_complete(folder: RunFolder) -> None:
    save(folder.last, 11, record={"train/loss": 1.0}, validation_due=True)
    point = ResumePoint.find(folder, "last")
    assert (point.path, point.step, point.loops) == (folder.last, 11, {"at": 11})
    assert (point.record, point.validation_due) == ({"train/loss": 1.0}, True)


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"half")])
def test_without_it_the_complete_one_with_the_most_steps_is_used(
    damage, folder: RunFolder, capsys: pytest.CaptureFixture
) -> None:
    save(folder.last, 13)
    damage(folder.last)
    assert ResumePoint.find(folder, "last").step == 12
    assert "step-12.ckpt" in capsys.readouterr().out
    (folder.checkpoints / "step-12.ckpt").write_bytes(b"half")
    assert ResumePoint.find(folder, "last").step == 10


def test_a_named_checkpoint_is_used_and_no_other(folder: RunFolder) -> None:
    path = folder.checkpoints / "step-9.ckpt"
    assert ResumePoint.find(folder, str(path)).step == 9
    path.write_bytes(b"half")
    with pytest.raises(ConfigError, match="not a complete checkpoint"):
        ResumePoint.find(folder, str(path))
    path.unlink()
    with pytest.raises(ConfigError, match="there is no checkpoint"):
        ResumePoint.find(folder, str(path))
