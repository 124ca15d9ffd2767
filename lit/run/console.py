"""What a command prints: its own lines, and as few as possible of the libraries'."""

import gc
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# The same object as lightning.pytorch.utilities.rank_zero_only, which takes seconds to import.
from lightning_utilities.core.rank_zero import rank_zero_only

from data.text import clean
from lit.messages import tr

# Warnings about something intended, or that no user can change.
EXPECTED = (
    ".*in eval mode at the start of training.*",  # as transformers loads; on_train_start sets it
    ".*does not have many workers.*",  # batches are precomputed: workers would have little to do
    ".*Experiment logs directory .* exists.*",  # the folder was claimed before
    ".*isinstance.treespec, LeafSpec.*",
    ".*`is_gradient_checkpointing` is deprecated.*",
    ".*smaller than the logging interval.*",
    ".*your dataloader is not resumable.*",  # the plan is: it starts at the next step
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*The dirpath has changed from.*",  # a moved folder: its older checkpoints stay there
    ".*callbacks used to create the checkpoint need to be provided.*",
    ".*Total length of `list` across ranks is zero.*",  # a run without validation
    ".*when logging on epoch level in distributed setting.*",  # the loss is summed over all ranks
    ".*`torch.jit.script_method` is deprecated.*",
)


YOUNG_OBJECTS = 50_000
"""So many new objects are looked through for garbage at a time."""
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
"""What launchers set to the rank of a process that they start."""


def is_rank0() -> bool:
    """Return whether this process is the first rank; a process without Lightning is."""
    return getattr(rank_zero_only, "rank", 0) == 0


def print_rank0(line: str, note: bool = False) -> None:
    """Print a line, on the first rank only; a closed or narrow stream is no error.

    Args:
        line: The line.
        note: Whether it goes to stderr, since stdout may hold a model's answers.
    """
    if not is_rank0():
        return
    try:
        print(clean(line), file=sys.stderr if note else sys.stdout, flush=True)
    except (OSError, ValueError):
        # Only where the stream is not the command's own, as in a notebook: see lit.run.streams.
        return


@contextmanager
def loading_libraries() -> Iterator[None]:
    """Import libraries in a ``with`` block: say so on stderr, and load them faster.

    It covers the first import of torch, which takes seconds without a sign of life. If torch is
    there already, nothing happens.
    """
    if "torch" in sys.modules:
        yield
        return
    # Lightning, which would know the rank, is one of the libraries.
    if all(os.environ.get(name, "0") == "0" for name in RANK_VARIABLES):
        print(tr("loading the libraries …"), file=sys.stderr, flush=True)
    # Modules make a million objects that live as long as the process. Collecting garbage amid them
    # took a sixth of the time, and each later collection would look at all of them again.
    gc.disable()
    try:
        yield
        gc.freeze()
        # A model and its tokenizer make as many again, few of them garbage. The usual 700 took a
        # twentieth of the time to the first step.
        gc.set_threshold(YOUNG_OBJECTS)
    finally:
        gc.enable()


def quiet() -> None:
    """Silence Lightning's messages below a warning, and the expected warnings."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # On some CPUs it recommends an optional package, even when no weights are in 4 bits.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    for message in EXPECTED:
        warnings.filterwarnings("ignore", message)


def print_error(rank: int, code: int, text: str) -> None:
    """Print on stderr why a rank ends.

    Args:
        rank: The rank of this process.
        code: Its exit code; above 2 it was stopped by a signal, which is no error.
        text: The reason; nothing is printed if it is empty.
    """
    if text:
        if code <= 2:
            text = (
                tr("error (rank {rank}): {error}", rank=rank, error=text)
                if rank
                else tr("error: {error}", error=text)
            )
        print(clean(text), file=sys.stderr, flush=True)
