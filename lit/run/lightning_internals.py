"""Everything that lit uses of Lightning's private API, one function per need.

Written for lightning>=2.6.6,<2.7. ``tests/lit/run/test_lightning_internals.py`` lists every private
symbol that is used here, and checks that no other file of lit reads one.

A subclass may override a method that Lightning calls by a private name. There is one:
``ShardedStrategy._configure_launcher`` in ``lit/distributed/sharding.py``.

This file imports Lightning inside its functions, so that importing it is cheap.
"""

from __future__ import annotations

import copy
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # seconds to import
    import lightning as L
    from lightning.fabric.plugins.environments import ClusterEnvironment
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.strategies import ModelParallelStrategy


def step_ends(trainer: L.Trainer) -> bool:
    """Return whether the current micro-batch is the last one of its optimizer step."""
    return not trainer.fit_loop._should_accumulate()


def validation_is_due(trainer: L.Trainer) -> bool:
    """Return whether Lightning validates after the current micro-batch."""
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None, "only known while a run trains"
    return bool(trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher))


def run_due_validation(trainer: L.Trainer) -> None:
    """Validate now, as the training loop does between two micro-batches.

    Call it in ``on_train_start``: Lightning skips the validation that was due when the checkpoint
    was written.
    """
    loop, logs = trainer.fit_loop.epoch_loop.val_loop, trainer._logger_connector
    first = logs._first_loop_iter
    trainer.validating, loop.restarting = True, False
    loop.run()
    trainer.training, logs._first_loop_iter = True, first


def fit_position(trainer: L.Trainer) -> dict[str, Any]:
    """Return a copy of the position of the training loops, in the form a checkpoint holds."""
    return copy.deepcopy(trainer.fit_loop.state_dict())


def checkpoint_position(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of the position of the training loops that a checkpoint holds."""
    return copy.deepcopy(checkpoint["loops"]["fit_loop"])


def set_checkpoint_position(checkpoint: dict[str, Any], position: dict[str, Any]) -> None:
    """Replace the position of the training loops in a checkpoint."""
    checkpoint["loops"]["fit_loop"] = position


def batch_progress(checkpoint: dict[str, Any]) -> tuple[int, int]:
    """Return the epochs that are complete, and the micro-batches done in the epoch after them."""
    position = checkpoint["loops"]["fit_loop"]
    epochs = position["epoch_progress"]["current"]["completed"]
    return epochs, position["epoch_loop.batch_progress"]["current"]["ready"]


def shift_batch_progress(checkpoint: dict[str, Any], by: int) -> None:
    """Add a number of micro-batches to those that a checkpoint counts in the current epoch."""
    counts = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]
    for name in counts:
        counts[name] += by


def save_last_step(callback: ModelCheckpoint, trainer: L.Trainer) -> None:
    """Save a checkpoint of the current step, unless the callback has saved one of it."""
    if trainer.global_step != callback._last_global_step_saved:
        callback._save_topk_checkpoint(trainer, callback._monitor_candidates(trainer))
        callback._save_last_checkpoint(trainer, callback._monitor_candidates(trainer))


def cluster_environment(trainer: L.Trainer) -> ClusterEnvironment:
    """Return how the processes of a run were started: by Lightning, torchrun, SLURM, …

    A strategy for one device does not have this attribute, so it cannot be asked.
    """
    return trainer._accelerator_connector.cluster_environment


def splits_batches_over_ranks(trainer: L.Trainer) -> bool:
    """Return whether Lightning replaces a loader's sampler by one that gives each rank a share."""
    connector = trainer._accelerator_connector
    return bool(connector.use_distributed_sampler) and trainer.world_size > 1


def started_rank() -> int:
    """Return the rank that this process was started as, from its environment variables."""
    from lightning.fabric.utilities.rank_zero import _get_rank

    return _get_rank() or 0


def starts_commands(trainer: L.Trainer) -> bool:
    """Return whether the strategy starts each other rank as a command, as ddp does."""
    from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

    return isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher)


def start_ranks(trainer: L.Trainer) -> list[subprocess.Popen]:
    """Start the other ranks of this machine and return their processes.

    Starts none where torchrun or SLURM did. Lightning no longer watches the processes: it would
    kill all of them without a message when one ends.

    Args:
        trainer: ``starts_commands`` is true for it.

    Raises:
        ValueError: SLURM started another number of processes than the settings ask for.
    """
    launcher: Any = trainer.strategy.launcher
    launcher.launch(lambda: None, trainer=trainer)
    processes = list(launcher.procs)
    launcher.procs.clear()
    return processes


def use_command_launcher(strategy: ModelParallelStrategy) -> None:
    """Let a strategy start ranks as commands, also where torchrun or SLURM started them.

    There the launcher starts nothing, but checks the number of processes.
    """
    from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

    assert strategy.cluster_environment is not None
    strategy._launcher = _SubprocessScriptLauncher(
        strategy.cluster_environment, strategy.num_processes, strategy.num_nodes
    )


def join_one_mesh(strategy: ModelParallelStrategy) -> None:
    """Connect this process with the other ranks, in a device mesh of one dimension.

    A second call changes nothing.
    """
    from torch.distributed.device_mesh import init_device_mesh

    strategy._setup_distributed()
    if strategy._device_mesh is None:
        size = (strategy.world_size,)
        strategy._device_mesh = init_device_mesh(strategy.root_device.type, size)
