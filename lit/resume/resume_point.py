"""The point of a run at which a checkpoint was written, and from which it resumes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lit.messages import tr
from lit.resume.checkpoint import AtomicCheckpointIO
from lit.resume.settings_diff import Settings
from lit.run.console import print_rank0
from lit.run.folder import RunFolder
from lit.run.lightning_internals import checkpoint_position
from lora.config import ConfigError

REQUIRED = {"state_dict", "global_step", "loops", "optimizer_states", "lr_schedulers", "callbacks"}
"""Keys of Lightning's that a checkpoint must have."""
CHECKPOINT_KEY = "lit-lora"
"""The key of a checkpoint that ``ResumeState`` writes and ``ResumePoint`` reads."""


@dataclass(frozen=True)
class ResumePoint:
    """Where a run resumes; by default at its start, with step 0 and no path."""

    path: Path | None = None
    step: int = 0
    """Optimizer steps done."""
    settings: Settings = field(default_factory=dict)
    """Settings of the run; empty if the checkpoint does not hold them."""
    validation_due: bool = False
    """Whether the run must still validate after this step."""
    record: dict[str, float] = field(default_factory=dict)
    """What the step logged, or was about to log."""
    step_map: list[tuple[int, int, int, int]] = field(default_factory=list)
    """The segments of the run; see ``data.planning.step_map``."""
    library: str = ""
    """What computes the frozen layers, as ``lit.fast_layers.library.library_of`` returns it."""
    loops: dict[str, Any] = field(default_factory=dict)
    """Lightning's own position; see ``lit.run.lightning_internals``."""

    @classmethod
    def read(cls, path: Path | str) -> "ResumePoint":
        """Read a checkpoint.

        Raises:
            ConfigError: It is incomplete, or lacks what a run needs to resume.
        """
        loaded = AtomicCheckpointIO().load_checkpoint(path)
        if not isinstance(loaded, dict) or (missing := sorted(REQUIRED - loaded.keys())):
            lacks = ", ".join(missing) if isinstance(loaded, dict) else tr("every key")
            raise ConfigError(
                tr(
                    "{path} is not the checkpoint of a run: it lacks {lacks}",
                    path=path,
                    lacks=lacks,
                )
            )
        own = loaded.get(CHECKPOINT_KEY, {})
        return cls(Path(path), loaded["global_step"], loops=checkpoint_position(loaded), **own)

    @classmethod
    def find(cls, folder: RunFolder, ckpt_path: str) -> "ResumePoint":
        """Read the checkpoint that ``--ckpt_path`` names.

        Args:
            folder: The run's folder.
            ckpt_path: A file, or ``last`` for the newest complete checkpoint of the folder.

        Raises:
            ConfigError: There is no such checkpoint.
        """
        if ckpt_path != "last":
            if "://" not in ckpt_path and not Path(ckpt_path).is_file():
                raise ConfigError(
                    tr("cannot resume: there is no checkpoint {ckpt_path}", ckpt_path=ckpt_path)
                )
            return cls.read(ckpt_path)
        others = sorted(set(folder.checkpoints.glob("*.ckpt")) - {folder.last})
        if not (folder.last.is_file() or others):
            raise ConfigError(tr("cannot resume: there is no checkpoint {last}", last=folder.last))
        reason = tr("there is no {last}", last=folder.last)
        if folder.last.is_file():
            try:
                return cls.read(folder.last)
            except (ConfigError, OSError) as error:
                reason = str(error)
        complete = []
        for path in others:
            try:
                complete.append(cls.read(path))
            except (ConfigError, OSError) as error:
                reason += f"; {error}"
        if not complete:
            raise ConfigError(
                tr(
                    "no checkpoint in {checkpoints} is complete: {reason}",
                    checkpoints=folder.checkpoints,
                    reason=reason,
                )
            )
        newest = max(complete, key=lambda resume_point: resume_point.step)
        print_rank0(
            tr(
                "resume {reason}. Resuming from the one before, {path}",
                reason=reason,
                path=newest.path,
            )
        )
        return newest
