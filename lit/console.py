"""What a command says: its own lines, and as little as possible of the libraries'."""

import logging
import sys
import warnings

from lightning.pytorch.utilities import rank_zero_only
from transformers.utils import logging as transformers_logging

# Each of these speaks of something that is meant here, or that no user can change.
EXPECTED = (
    ".*in eval mode at the start of training.*",  # transformers loads so; on_train_start cares
    ".*does not have many workers.*",  # batches are ready-made; there is little for workers to do
    ".*Experiment logs directory .* exists.*",  # the folder was claimed before
    ".*isinstance.treespec, LeafSpec.*",
    ".*`is_gradient_checkpointing` is deprecated.*",
    ".*smaller than the logging interval.*",
)


@rank_zero_only
def say(line: str) -> None:
    """Print a line, on the first rank only."""
    print(line, flush=True)


def quiet() -> None:
    """Keep libraries to their warnings, and bars to a terminal."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in EXPECTED:
        warnings.filterwarnings("ignore", message)
    transformers_logging.set_verbosity_error()
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
