"""Several ranks that go through the same command lines of lit.fit, one line after another.

    python tests/sharded_ranks.py RUNS FOLDER

RUNS is a JSON file of command lines by name. Everything is imported once; each rank of a run is
forked, and is told what torchrun would tell it. What it says is in FOLDER under its run's name and
its number; the exit codes are in FOLDER/codes.json.
"""

import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path

import datasets
import lightning as L
import matplotlib.backends.backend_agg
import torch
import transformers
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from torch.distributed.tensor import DTensor

from lit.fit import main
from lit.module import LoRAModule
from lora.inject import tensors

RANKS = 2
PATIENCE = 100
"""Seconds after which a rank that hangs is ended."""


class Held(Callback):
    """Notes what a rank holds of a model's parameters after a step.

    Args:
        path: Of the JSON file of rank 0; the others' end in their number.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object
    ) -> None:
        """Write the bytes of the frozen tensors, here and in all, and the dtypes that train."""
        assert isinstance(pl_module, LoRAModule)
        model = pl_module.adapted_model
        frozen = [p for p in model.parameters() if not p.requires_grad]
        local = [p.to_local() if isinstance(p, DTensor) else p for p in frozen]
        held = {
            "here": sum(p.untyped_storage().nbytes() for p in local),
            "all": sum(p.numel() * p.element_size() for p in frozen),
            "dtypes": sorted({str(p.dtype) for p in tensors(model).values()}),
        }
        Path(f"{self.path}.{trainer.global_rank}").write_text(json.dumps(held))


def free_port() -> int:
    """A port of the loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def become_rank(rank: int, port: int, args: list[str], said: Path) -> None:
    """Become a rank of a run, and end."""
    code = 1
    try:
        signal.alarm(PATIENCE)
        output = os.open(said, os.O_WRONLY | os.O_CREAT)
        for number in (1, 2):
            os.dup2(output, number)
        numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": RANKS, "LOCAL_WORLD_SIZE": RANKS}
        numbers |= {"GROUP_RANK": 0, "MASTER_PORT": port}
        os.environ |= {name: str(number) for name, number in numbers.items()}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "test"}
        # Lightning looked for its rank when it was imported.
        rank_zero_only.rank = rank
        code = main(args)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def go_through(args: list[str], said: str) -> list[int]:
    """Start all ranks of a run, wait for them, and give their exit codes."""
    port, children = free_port(), []
    for rank in range(RANKS):
        if child := os.fork():
            children.append(child)
        else:
            become_rank(rank, port, args, Path(f"{said}.{rank}"))
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


if __name__ == "__main__":
    runs, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    torch.set_num_threads(1)
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    # What the command imports only once it is needed.
    print(matplotlib.backends, transformers.get_scheduler, transformers.LlamaForCausalLM)
    codes = {name: go_through(args, str(folder / name)) for name, args in runs.items()}
    (folder / "codes.json").write_text(json.dumps(codes))
