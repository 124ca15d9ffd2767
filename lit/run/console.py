"""What a command says: its own lines, and as little as possible of the libraries'."""

import logging
import sys
import warnings

from lightning.pytorch.utilities import rank_zero_only

# Each of these speaks of something that is meant here, or that no user can change.
EXPECTED = (
    ".*in eval mode at the start of training.*",  # transformers loads so; on_train_start cares
    ".*does not have many workers.*",  # batches are ready-made; there is little for workers to do
    ".*Experiment logs directory .* exists.*",  # the folder was claimed before
    ".*isinstance.treespec, LeafSpec.*",
    ".*`is_gradient_checkpointing` is deprecated.*",
    ".*smaller than the logging interval.*",
    ".*your dataloader is not resumable.*",  # the plan is: it begins at the step that is due
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*The dirpath has changed from.*",  # a folder that was moved: its older checkpoints stay
    ".*callbacks used to create the checkpoint need to be provided.*",
    ".*AMP with fp16 is not supported on CPU.*",  # lit.preflight.verdict says so, and refuses
    ".*Total length of `list` across ranks is zero.*",  # no validation was asked for
    ".*when logging on epoch level in distributed setting.*",  # the loss was summed over all ranks
    ".*`torch.jit.script_method` is deprecated.*",
)


@rank_zero_only
def print_rank0(line: str) -> None:
    """Print a line, on the first rank only."""
    print(line, flush=True)


def quiet() -> None:
    """Keep Lightning to its warnings, without those that are meant here."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It advises an optional package on some CPUs, also to those who train without 4-bit weights.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    for message in EXPECTED:
        warnings.filterwarnings("ignore", message)


def print_error(rank: int, code: int, text: str) -> None:
    """Say on stderr why a rank ends."""
    if text:
        kind = f"error (rank {rank}): " if rank else "error: "
        print(f"{kind if code <= 2 else ''}{text}", file=sys.stderr, flush=True)
