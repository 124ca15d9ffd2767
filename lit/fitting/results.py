"""What a finished run writes beside its adapter: the model card, hyper-parameters, the picture."""

import math

from lightning.pytorch.loggers import TensorBoardLogger

from data.templates.variables import read_values, shown
from lit.fitting.hyperparameters import log_hyperparameters
from lit.measures.language import language
from lit.model.architecture import loader_of
from lit.model.peft_note import describe_misreading
from lit.report.pictures import loss_picture
from lit.run.card import write_card
from lit.run.folder import RunFolder
from lit.run.metrics_file import read_losses
from lit.settings.arguments import Arguments
from lit.train.best_adapter import BestAdapter
from lora.injection import adapted_layers
from lora.paths import last_names

LAST_LOSSES = {"train/loss": "last_train_loss", "val/loss": "last_val_loss"}
"""What the last values of the logged losses are called among a run's final losses."""


def write_results(
    arguments: Arguments, folder: RunFolder, best: BestAdapter, tensorboard: TensorBoardLogger
) -> None:
    """Write the results of a run, the picture last: a run without it is incomplete.

    Args:
        arguments: The settings, with the objects of the run.
        folder: The run's folder.
        best: The best adapter and its losses.
        tensorboard: The run's logger.
    """
    trainer = arguments.trainer
    write_model_card(arguments, folder, best)
    last = trainer.callback_metrics
    losses = {"best_val_loss": best.loss} if len(arguments.datamodule.val_rows) else {}
    losses |= {name: float(last[key]) for key, name in LAST_LOSSES.items() if key in last}
    log_hyperparameters(tensorboard, arguments.settings(), losses, trainer.global_step)
    loss_picture(*read_losses(folder.metrics), folder.picture)


def write_model_card(arguments: Arguments, folder: RunFolder, best: BestAdapter) -> None:
    """Write the README.md beside a run's adapter; arguments as above."""
    data, model = arguments.datamodule, arguments.model
    write_card(
        folder.adapter,
        base=model.base,
        base_loss=best.base_loss,
        loss=best.loss if math.isfinite(best.loss) else math.nan,
        data=data.source.name,
        rows=len(data.train_rows),
        val_rows=len(data.val_rows),
        r=model.lora.r,
        lora_alpha=model.lora.lora_alpha,
        lora_dropout=model.lora.lora_dropout,
        targets=last_names(path for path, _ in adapted_layers(model.adapted_model)),
        step=best.step,
        loader=loader_of(model.adapted_model),
        values=shown(values) if (values := read_values(data.tokenizer)) else "",
        adapter=model.adapter,
        note=describe_misreading(model.adapted_model),
        language=language(message.content for _, row, _ in data.held_out() for message in row),
        datasets=data.source.hub_names,
    )
