"""The LightningModule: a base model with adapters, trained by exact optimizer steps."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from transformers import PreTrainedModel

from data.seeds import mix_seed
from data.types import Batch
from lit.distributed.sharding import ShardedRoot
from lit.messages import tr
from lit.model.embedding_noise import EmbeddingNoise
from lit.model.loss import summed_loss
from lit.model.preparation import ModelSpec
from lit.packing.hidden_states import as_computed
from lit.run.console import print_rank0
from lit.train.mean_loss import MeanLoss, loss_record
from lit.train.model_setup import (
    ResidentModule,
    call_model,
    names_that_ddp_ignores,
    set_up_model,
)
from lit.train.schedule import check_rate, make_schedule
from lit.train.step_guard import StepGuard, check_gradients, loss_scaler
from lit.train.step_loss import StepLoss, labels_of_step
from lit.train.validation_schedule import validation_schedule
from lora.config import LoRAConfig
from lora.injection import trainable_parameters
from lora.optimizer import make_optimizer
from lora.storage.state import adapter_state, load_adapter_state

LAST_EPOCH = "lit-lora epoch"
"""The key of a checkpoint for the epoch of the last optimizer step."""
T = TypeVar("T")


class LoRAModule(ResidentModule):
    """Trains the adapters of a causal language model.

    Works with any ``Trainer`` and any data module that yields ``data.types.Batch``.

    Args:
        base: The base model: a hub name, or a folder.
        lora: The adapter's settings.
        revision: A branch, tag or commit of the hub.
        quantize: Load the base's linear layers in 4 bits (``nf4``, ``fp4``) or 8 bits (``int8``).
        optimizer: ``adamw``, one of bitsandbytes' 8-bit AdamW optimizers, or ``sgd``.
        lr: The highest learning rate.
        weight_decay: Weight decay of A and B; nothing else decays.
        scheduler: How the learning rate falls after the warm-up.
        warmup: Optimizer steps of rising learning rate; below 1, a share of all steps.
        gradient_checkpointing: Compute activations twice and keep few: less memory, a third slower.
        fast_layers: ``auto`` replaces layers by equal ones that are faster or keep less; ``off``
            trains on transformers' own.
        on_nonfinite: Where a loss or gradient is not finite, ``stop`` the run before the update, or
            ``skip`` the step and count it.
        adapter: The folder of an adapter to go on from; ``lora`` must agree with it.
        seed: Taken from ``seed_everything``.
    """

    model: PreTrainedModel | None
    root: ShardedRoot | None

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
        fast_layers: Literal["auto", "off"] = "auto",
        on_nonfinite: Literal["stop", "skip"] = "stop",
        adapter: str | None = None,
        seed: int = 42,
    ) -> None:
        super().__init__()
        check_rate(lr, warmup)
        self.base, self.revision, self.lora, self.quantize = base, revision, lora, quantize
        self.adapter, fast, saving = adapter, fast_layers == "auto", gradient_checkpointing
        self.spec = ModelSpec(base, revision, quantize, lora, saving, fast, seed, adapter)
        self.optimizer, self.lr, self.weight_decay = optimizer, lr, weight_decay
        self.scheduler, self.warmup, self.seed = scheduler, warmup, seed
        self.gradient_checkpointing = saving
        self.step_guard = StepGuard(skip=on_nonfinite == "skip")
        self.total_steps: int | None = None
        """Optimizer steps of the run, for the schedule; None takes Lightning's own estimate."""
        self.model = self.root = None
        self.strict_loading = False  # load_state_dict below is strict about the adapter's tensors
        self.step_loss = StepLoss()
        self._val_loss = MeanLoss()
        self.val_metrics: dict[str, float] = {}  # a callback's, to be logged with the loss
        self._last_epoch = 0

    def configure_model(self) -> None:
        """Load the base, put the adapters on, and check packed attention and the loss."""
        if self.model is not None:
            return
        self.model, self.root = model, _ = set_up_model(self.spec, self.trainer)
        self.noise = EmbeddingNoise(model.get_input_embeddings(), self.lora.neftune_alpha)
        self._ddp_params_and_buffers_to_ignore = names_that_ddp_ignores(self)

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function of the model; where the base is sharded, every rank must take part."""
        return call_model(self.adapted_model, self.root, function, *args)

    def configure_callbacks(self) -> list[Callback]:
        """Attach the step guard to every run, and what the data module asks for."""
        return [self.step_guard, *validation_schedule(self.trainer)]

    def on_train_start(self) -> None:
        """Switch to training mode: transformers loads models in eval mode."""
        self.adapted_model.train()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout by the batch: it draws the same on any rank and in a resumed run."""
        torch.manual_seed(mix_seed(self.seed, batch.rng_key))
        self._last_epoch = self.trainer.current_epoch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the micro-batch's share of the optimizer step's loss.

        Lightning divides by the number of micro-batches, and DDP by the number of ranks. Multiplied
        back, every labeled token of the step has the same weight, in a short last step too.
        """
        self.noise.batch = batch = as_computed(self.adapted_model, batch)
        labels = labels_of_step(batch, self.trainer)
        loss = self.call(summed_loss, batch) / labels
        self.step_loss.add(loss, batch, labels)
        return loss * self.trainer.accumulate_grad_batches * self.trainer.world_size

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Check and log the step; drop the gradients of a step that is skipped.

        Raises:
            TrainingError: A layer has no gradient, a number is not finite, or labels are missing.
        """
        step, every = self.trainer.global_step, vars(self.trainer)["log_every_n_steps"]
        if step == 0:
            check_gradients(self.adapted_model)
        parameters = trainable_parameters(self.adapted_model).values()
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        sums = self.trainer.strategy.reduce(self.step_loss.take(), reduce_op="sum")
        # A step waits for its device here; in 16-mixed, torch's loss scaler waits once more.
        loss, labels, size = torch.stack([*sums, norm.to(sums)]).tolist()
        self.step_loss.check(labels, step + 1)
        lr, scaler = optimizer.param_groups[0]["lr"], loss_scaler(self.trainer)
        if not self.step_guard.accepts(step + 1, loss, size, lr, scaled=scaler is not None):
            # An optimizer passes over parameters without gradient, moments included.
            for parameter in parameters:
                parameter.grad = None
        values = {"train/loss": loss, "train/grad_norm": size, "train/lr": lr}
        asked = scaler if (step + 1) % every == 0 else None
        for name, value in (values | self.step_guard.scaler_values(asked)).items():
            # A tensor on the CPU: Lightning would copy a number to the device.
            self.log(name, torch.tensor(value), prog_bar=name == "train/loss")
        # The first loss shows whether a run starts well; Lightning waits for the n-th step.
        for logger in self.trainer.loggers if step == 0 and every > 1 else []:
            logger.log_metrics({"train/loss": loss}, step=0)

    def on_validation_start(self) -> None:
        """Start a new mean."""
        self._val_loss = MeanLoss()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the micro-batch's loss to the mean."""
        self._val_loss.add(self.call(summed_loss, batch), batch.label_count)

    def on_validation_epoch_end(self) -> None:
        """Log the mean loss of a labeled token over all rows and ranks."""
        loss = self._val_loss.reduce(self.trainer)
        self.log("val/loss", torch.tensor(loss), prog_bar=True, logger=False)
        # Lightning would log a validation under the number of the step before it, and, in a run
        # resumed at the end of an epoch, under the next epoch. Its sanity check is no validation.
        values = loss_record(loss) | self.val_metrics | {"epoch": self._last_epoch}
        for logger in [] if self.trainer.sanity_checking else self.trainer.loggers:
            logger.log_metrics(values, self.trainer.global_step)

    def configure_optimizers(self) -> Any:
        """Return the optimizer of what trains, and its schedule by optimizer steps."""
        if self.optimizer.startswith("paged") and self.device.type == "cpu":
            print_rank0(tr("optim  paging needs a GPU: on this CPU paged_adamw_8bit is adamw_8bit"))
        lr, decay, ratio = self.lr, self.weight_decay, self.lora.loraplus_lr_ratio
        optimizer = make_optimizer(self.adapted_model, self.optimizer, lr, decay, ratio)
        steps = self.total_steps or int(self.trainer.estimated_stepping_batches)
        schedule = make_schedule(optimizer, self.scheduler, self.warmup, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the epoch of the last optimizer step."""
        checkpoint[LAST_EPOCH] = self._last_epoch

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore it."""
        self._last_epoch = checkpoint.get(LAST_EPOCH, 0)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return the adapter's tensors by their path in the model; never base weights."""
        return adapter_state(self.adapted_model)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load the adapter's tensors, which must be exactly those of this model."""
        load_adapter_state(self.adapted_model, state_dict)

    @property
    def adapted_model(self) -> PreTrainedModel:
        """The model; available after ``configure_model``."""
        if self.model is None:
            raise RuntimeError("configure_model has not been called")
        return self.model
