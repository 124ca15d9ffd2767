"""Lightning's own Trainer and our module on the simulated device."""

import platform
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import bitsandbytes  # noqa: F401 - before torch.cuda seems to be there, so without its kernels
import lightning as L
import torch
import torch.nested._internal.sdpa as nested_sdpa
import torch.nn.functional as F
import transformers
from device_kernels import without_mps_kernel
from device_tensors import UNKNOWN, AnyDevice, Watch, methods
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils.data import DataLoader

from data.planning.batch import collate
from data.types import IGNORE, Example
from lit.device import device as device_room
from lit.fitting.progress import Throughput
from lit.train.longest_batch import LongestBatchTrial
from lit.train.module import LoRAModule
from lora.config import LoRAConfig

SIZES = {
    "vocab_size": 1000,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}
STEPS = 2
GIB = 2**30


@dataclass(frozen=True)
class Row:
    """What is trained."""

    variant: str = "lora"
    precision: str = "bf16-true"
    family: str = "llama"
    layers: int = 2
    lora: dict[str, Any] = field(default_factory=dict)
    module: dict[str, Any] = field(default_factory=dict)
    accumulate: int = 1
    capability: tuple[int, int] = (8, 0)
    flash: bool = True

    def __post_init__(self) -> None:
        """Make a tuple of what JSON has as a list."""
        object.__setattr__(self, "capability", tuple(self.capability))


class Marks(Callback):
    """Tells the watch which phase of training runs."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def on_train_start(self, *_: object) -> None:
        self.watch.phase = "start"

    def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
        self.watch.phase = f"step {trainer.global_step + 1}"

    def on_validation_start(self, *_: object) -> None:
        self.watch.phase = "validation"

    def on_train_end(self, *_: object) -> None:
        self.watch.phase = "end"


class MarkedTrial(LongestBatchTrial):
    """The longest batch's trial, counted apart."""

    watch: Watch

    def on_train_batch_end(self, *args: Any) -> None:
        with self.watch.during("trial"):
            super().on_train_batch_end(*args)


class MarkedTrainer(L.Trainer):
    """Lightning's Trainer; moving the module to the CPU at its end is counted apart."""

    watch: Watch

    def _teardown(self) -> None:
        with self.watch.during("teardown"):
            super()._teardown()


class NoFiles(Logger):
    """A logger that keeps nothing; Lightning reads the numbers that it hands over."""

    name = version = "none"

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        pass

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass


def example(length: int, labels: int) -> Example:
    """Return a row whose last tokens are labeled."""
    ids = [1 + i % 900 for i in range(length)]
    return Example(ids, [IGNORE] * (length - labels) + ids[length - labels :])


ROWS = [example(7, 3), example(5, 2), example(9, 4)]
LABELS = 9


class Batches(L.LightningDataModule):
    """The same batch for each micro-step."""

    def __init__(self, accumulate: int) -> None:
        super().__init__()
        self.accumulate = accumulate

    def _loader(self, count: int) -> DataLoader:
        return DataLoader(range(count), batch_size=None, collate_fn=self._batch, pin_memory=True)

    def _batch(self, index: int) -> Any:
        return collate(ROWS, LABELS * self.accumulate, rng_key=index)

    def train_dataloader(self) -> DataLoader:
        return self._loader(STEPS * self.accumulate)

    def val_dataloader(self) -> DataLoader:
        return self._loader(2)


def answers(watch: Watch, capability: tuple[int, int]) -> dict[str, Any]:
    """Return what torch.cuda or torch.mps says and does where there is one such device."""
    state = torch.Generator().get_state()
    both = {
        "device_count": lambda: 1,
        "empty_cache": lambda: None,
        "synchronize": lambda device=None: watch.note("synchronize"),
        "get_rng_state": lambda device=None: state,
        "set_rng_state": lambda new, device=None: None,
    }
    if watch.device_type == "mps":
        return both | {
            "manual_seed": lambda seed: None,
            "current_allocated_memory": lambda: 6 * GIB,
            "driver_allocated_memory": lambda: 7 * GIB,
            "recommended_max_memory": lambda: 8 * GIB,
        }
    return both | {
        "is_available": lambda: True,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "is_bf16_supported": lambda *args, **kwargs: capability >= (8, 0),
        "get_device_capability": lambda device=None: capability,
        "get_device_name": lambda device=None: "simulated",
        "mem_get_info": lambda device=None: (GIB, 16 * GIB),
        "max_memory_reserved": lambda device=None: 15 * GIB,
        "get_rng_state_all": lambda: [state],
        "set_rng_state_all": lambda states: None,
        "manual_seed_all": lambda seed: None,
    }


@contextmanager
def believed(watch: Watch, row: Row) -> Iterator[None]:
    """Let torch answer for one device of the row's kind, and count generators."""
    real = torch.Generator

    def generator(device: torch.device | str = "cpu") -> torch.Generator:
        if torch.device(device).type == watch.device_type:
            watch.note("generator")
        return real("cpu")

    replaced = [
        (getattr(torch, watch.device_type), answers(watch, row.capability)),
        (torch.backends.cuda, {"is_flash_attention_available": lambda: row.flash}),
        (torch, {"Generator": generator}),
        (torch.cuda.amp.common, {"amp_definitely_not_available": lambda: False}),
        (torch.utils, {"swap_tensors": stay}),
        # A CPU build has no kernel for nested tensors, and says so.
        (nested_sdpa, {"can_use_efficient_attention": lambda params, debug=False: True}),
        # Lightning knows a Mac by its processor.
        (platform, {"processor": lambda: "arm"}),
    ]
    device_room._traits.cache_clear()  # rows have devices of different capabilities
    if watch.device_type == "mps":
        replaced += [(F, {"scaled_dot_product_attention": plain_attention})]
    with ExitStack() as stack:
        for module, values in replaced:
            for name, value in values.items():
                stack.enter_context(patch.object(module, name, value))
        yield


def plain_attention(*args: Any, **kwargs: Any) -> torch.Tensor:
    """Compute attention as MPS does: a CPU build has no choice of kernels for that device."""
    return torch.ops.aten._scaled_dot_product_attention_math(*args, **kwargs)[0]


def stay(tensor: torch.Tensor, moved: torch.Tensor) -> None:
    """Stand in for ``swap_tensors``, which a fake tensor refuses while it is watched.

    Modules are made on the device, so moving them there changes nothing. At its end Lightning moves
    the module to the CPU, and nothing reads it any more.
    """
    assert tensor.dtype == moved.dtype
    assert tensor.device == moved.device or moved.device.type == "cpu"


def base_of(row: Row, device: torch.device) -> Any:
    """Return a stand-in for ``load_base`` that makes a base on the simulated device."""
    config = transformers.AutoConfig.for_model(row.family, num_hidden_layers=row.layers, **SIZES)

    def load_base(base: str, revision: Any, dtype: torch.dtype, *_: object) -> Any:
        with device:
            return transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()

    return load_base


def run(device: str, row: Row) -> dict[str, Any]:
    """Train two steps, validate, and return counts by phase, place and kind."""
    warnings.filterwarnings("ignore")
    watch = Watch(device)
    trial = MarkedTrial(lambda: collate([example(30, 9)], LABELS))
    trial.watch = watch
    with (
        believed(watch, row),
        AnyDevice(shape_env=ShapeEnv()),  # nested tensors have a symbolic length
        watch,
        methods(watch),
        patch("lit.model.preparation.load_base", base_of(row, torch.device(device, 0))),
        # The codes of 8-bit states are a table of numbers, which the simulation does not know.
        patch("bitsandbytes.functional.create_dynamic_map", lambda *a, **k: torch.empty(256)),
        # Packed and single rows are compared by numbers, which the simulation does not know.
        patch("lit.packing.pack.tolerance", lambda *_: 2 * UNKNOWN),
        patch("lit.packing.pack.check_reach", lambda *_: None),
        patch("lit.packing.pack.rows_are_isolated", lambda *_: True),
    ):
        module = LoRAModule(
            "simulated", LoRAConfig(variant=row.variant, r=4, **row.lora), **row.module
        )
        trainer = MarkedTrainer(
            accelerator=device,
            devices=1,
            precision=row.precision,
            max_epochs=1,
            accumulate_grad_batches=row.accumulate,
            gradient_clip_val=1.0,
            num_sanity_val_steps=0,
            log_every_n_steps=100,
            logger=NoFiles(),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[Marks(watch), Throughput(), trial],
        )
        trainer.watch = watch
        trainer.fit(module, datamodule=Batches(row.accumulate))
        steps = trainer.global_step
    return {
        "steps": steps,
        "counts": {phase: dict(count) for phase, count in watch.counts.items()},
        "attention": sorted(name for name in watch.operations if "att" in name),
        "no MPS kernel": without_mps_kernel(watch.operations) if device == "mps" else [],
    }


def plant(device: str) -> list[str]:
    """Do each thing that is counted, and return the kinds that were: a blind watch shows here."""
    watch, there = Watch(device), torch.device(device, 0)
    with believed(watch, Row()), AnyDevice(), watch, methods(watch):
        pinned = torch.tensor([3, 0, 2]).pin_memory()
        assert pinned.is_pinned()
        assert not torch.ones(3).is_pinned()
        x = pinned.to(there, non_blocking=True)
        assert x.tolist() == [3, 0, 2]
        assert x.nonzero()[:, 0].cpu().tolist() == [0, 2]
        assert x[x > 2].shape == (1,)
        assert torch.arange(3, device=there).repeat_interleave(x).shape == (5,)
        torch.ones(3, device=there, dtype=torch.float64)
        torch.tensor(1.0, device=there)
        torch.Generator(there)
        torch.empty(3, device=there, dtype=torch.int64).random_(-(2**63), None)
    return sorted(
        key.split(" @ ")[0] for key, count in watch.counts["made"].items() for _ in range(count)
    )
