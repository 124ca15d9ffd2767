"""The LightningModule: a base model with adapters, one exact step at a time."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain
from typing import Any, Literal, TypeVar

import lightning as L
import torch
from torch import Tensor
from transformers import PreTrainedModel

from data.types import Batch
from lit.distributed.sharding import FSDP2, Gathered, ShardedStrategy, shard
from lit.model.embedding_noise import EmbeddingNoise
from lit.model.loss import summed_loss
from lit.model.preparation import ModelSpec, check
from lit.run.console import print_rank0
from lit.train.schedule import factor
from lit.train.step_guard import StepGuard
from lora.config import ConfigError, LoRAConfig
from lora.inject import trainable_parameters
from lora.optimizer import make_optimizer

PRECISIONS = {
    "32-true": torch.float32,
    "16-mixed": torch.float16,
    "bf16-mixed": torch.bfloat16,
    "bf16-true": torch.bfloat16,
}
"""What the base computes in; A and B are float32 in all of them."""
ENDINGS = (16, 8)
"""Tokens of the rows' ends on which a model is checked: few, as each run waits for it."""
T = TypeVar("T")


class LoRAModule(L.LightningModule):
    """Trains the adapters of a causal language model.

    Args:
        base: The base model: a hub name, or a folder.
        revision: A branch, tag or commit of the hub.
        lora: The adapter.
        quantize: ``nf4`` or ``fp4`` hold the base's linear layers in 4 bits, ``int8`` in 8.
        optimizer: ``adamw``, its 8-bit kin of bitsandbytes, or ``sgd``.
        lr: The highest learning rate.
        weight_decay: Decay of A and B; nothing else decays.
        scheduler: How the learning rate falls after the warm-up.
        warmup: Optimizer steps of rising learning rate; below 1, a share of all steps.
        gradient_checkpointing: Compute activations twice and keep few: less memory, a third slower.
        on_nonfinite: Where a loss or gradient is not finite, ``stop`` the run before the update, or
            ``skip`` the step and count it.
        seed: Taken from ``seed_everything``.
    """

    model: PreTrainedModel | None
    root: Gathered | None

    def __init__(
        self,
        base: str,
        lora: LoRAConfig,
        revision: str | None = None,
        quantize: Literal["nf4", "fp4", "int8"] | None = None,
        optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit", "sgd"] = "adamw",
        lr: float = 2e-4,
        weight_decay: float = 0.0,
        scheduler: Literal["cosine", "linear", "constant"] = "cosine",
        warmup: float = 0.03,
        gradient_checkpointing: bool = False,
        on_nonfinite: Literal["stop", "skip"] = "stop",
        seed: int = 42,
    ) -> None:
        super().__init__()
        if not 0 < lr < 1:
            raise ConfigError(f"model.lr is {lr}; it must be above 0 and below 1 (2e-4 is usual)")
        if warmup < 0:
            raise ConfigError(f"model.warmup is {warmup}; give steps, or a share below 1")
        self.base, self.revision, self.lora = base, revision, lora
        self.quantize = quantize
        self.recipe = ModelSpec(base, revision, quantize, lora, gradient_checkpointing, seed)
        self.optimizer, self.lr, self.weight_decay = optimizer, lr, weight_decay
        self.scheduler, self.warmup = scheduler, warmup
        self.gradient_checkpointing = gradient_checkpointing
        self.numbers = StepGuard(skip=on_nonfinite == "skip")
        self.seed = seed
        self.model = self.root = None
        # The checkpoint holds the adapter alone; load_state_dict below is strict about that.
        self.strict_loading = False
        self._step_loss = torch.zeros((), dtype=torch.float32)
        self._val = torch.zeros(2, dtype=torch.float64)

    def configure_model(self) -> None:
        """Load the base, put the adapters on, and check both on the first rows."""
        if self.model is not None:
            return
        precision = str(self.trainer.precision)
        if precision not in PRECISIONS:
            raise ConfigError(
                f"trainer.precision is {precision}; there are {', '.join(PRECISIONS)}"
            )
        strategy = self.trainer.strategy
        sharded = isinstance(strategy, ShardedStrategy)
        # A base that is sharded may be too large for a device; the module's own is not set yet.
        device = torch.device("cpu") if sharded else strategy.root_device
        model = self.recipe.make(PRECISIONS[precision], device, sharded)
        self._noise = EmbeddingNoise(model.get_input_embeddings(), self.lora.neftune_alpha)
        self.model = model
        if isinstance(strategy, ShardedStrategy):
            device = strategy.root_device
            self.root = shard(model, strategy.device_mesh, device)
        examples = self.trainer.datamodule.endings(ENDINGS)  # type: ignore[attr-defined]
        with self.trainer.precision_plugin.forward_context():
            check(self.call, examples, device, must_pack=FSDP2 if sharded else None)
        if self.gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        # Every rank has read the same base: DDP is to send nothing but what trains.
        trained = {f"model.{name}" for name in trainable_parameters(model)}
        named = chain(self.named_parameters(), self.named_buffers())
        self._ddp_params_and_buffers_to_ignore = [n for n, _ in named if n not in trained]

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function of the model; where the base is sharded, every rank must take part."""
        call = partial(function, self.adapted_model, *args)
        return self.root(call) if self.root else call()

    def configure_callbacks(self) -> StepGuard:
        """No run goes without a look at its numbers."""
        return self.numbers

    def to(self, *args: Any, **kwargs: Any) -> "LoRAModule":
        """Move to a device; the dtype stays, as bf16-true would round A and B at every step."""
        kwargs.pop("dtype", None)
        return super().to(*args, **kwargs)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed the dropout by the rows: whichever rank has them, and in whichever run, draws so."""
        torch.manual_seed(hash((self.seed, batch.rng_key)))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The micro-batch's share of the optimizer step's loss.

        Lightning divides by the number of micro-batches and DDP by the number of ranks; multiplied
        back, every labeled token of the step weighs the same, in a short last step too.
        """
        self._noise.lengths = batch.cu_seqlens.diff().tolist()
        loss = self.call(summed_loss, batch) / batch.step_labels
        self._step_loss = self._step_loss.to(loss.device) + loss.detach()
        return loss * self.trainer.accumulate_grad_batches * self.trainer.world_size

    def on_train_start(self) -> None:
        """Switch dropout and checkpointing on: transformers loads models in eval mode."""
        self.adapted_model.train()
        self._step_loss = torch.zeros((), dtype=torch.float32, device=self.device)

    def take_step_loss(self) -> Tensor:
        """The loss of an optimizer step on this rank; the next begins at zero."""
        loss, self._step_loss = self._step_loss, torch.zeros_like(self._step_loss)
        return loss

    def on_validation_start(self) -> None:
        """Begin a new sum."""
        self._val = torch.zeros(2, dtype=torch.float64, device=self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the micro-batch's loss and labels to the sum."""
        loss = self.call(summed_loss, batch).double()
        labels = (batch.labels >= 0).sum().double()
        self._val += torch.stack([loss, labels])

    def on_validation_epoch_end(self) -> None:
        """Log the mean loss of a labeled token over all rows and ranks."""
        loss, labels = self.trainer.strategy.reduce(self._val, reduce_op="sum")
        self.log("val/loss", (loss / labels).float(), prog_bar=True, logger=False)
        mean = float(loss / labels)
        values = {"val/loss": mean, "val/perplexity": math.exp(mean) if mean < 700 else math.inf}
        # Lightning gives a validation the number of the step before, and where a run was resumed at
        # the edge of an epoch, the next epoch's.
        step = self.trainer.global_step
        values["epoch"] = self.trainer.datamodule.epoch_of(step - 1)  # type: ignore[attr-defined]
        for logger in self.trainer.loggers:
            logger.log_metrics(values, step)

    def configure_optimizers(self) -> Any:
        """The optimizer over what trains, and the schedule by optimizer steps."""
        if self.optimizer.startswith("paged") and self.device.type == "cpu":
            print_rank0("optim  paging needs a GPU: on this CPU paged_adamw_8bit is adamw_8bit")
        lr, ratio = self.lr, self.lora.loraplus_lr_ratio
        chosen = make_optimizer(self.adapted_model, self.optimizer, lr, self.weight_decay, ratio)
        steps = self.trainer.datamodule.total_steps()  # type: ignore[attr-defined]
        rate = partial(factor, self.scheduler, self.warmup_steps(steps), steps)
        schedule = torch.optim.lr_scheduler.LambdaLR(chosen, rate)
        return {
            "optimizer": chosen,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def warmup_steps(self, steps: int) -> int:
        """How many of a run's optimizer steps its learning rate rises for."""
        return round(self.warmup if self.warmup >= 1 else self.warmup * steps)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The adapter's tensors by their path in the model; never base weights."""
        return {name: p.detach() for name, p in trainable_parameters(self.adapted_model).items()}

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Take the adapter's tensors, which must be exactly those of this model."""
        own = trainable_parameters(self.adapted_model)
        here = {name: tuple(p.shape) for name, p in own.items()}
        there = {name: tuple(p.shape) for name, p in state_dict.items()}
        if odd := sorted(set(here.items()) ^ set(there.items())):
            name = odd[0][0]
            raise ConfigError(
                f"the checkpoint's adapter is not this config's: {name} is "
                f"{there.get(name, 'missing')} there and {here.get(name, 'absent')} here"
            )
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(state_dict[name])

    @property
    def adapted_model(self) -> PreTrainedModel:
        """The model, once it is loaded."""
        if self.model is None:
            raise RuntimeError("configure_model has not been called")
        return self.model
