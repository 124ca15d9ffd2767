"""Train: python -m lit.fit --config F [--ckpt_path last|FILE] [--output_dir D] [any override]

Exit codes: 0 done; 2 the settings or the data are wrong; 1 failure; 130, 143 stopped by a signal
after saving.
"""

import math
import sys

from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger

from data.types import DataError
from lit import console
from lit import model as models
from lit.arguments import Arguments, parse
from lit.callbacks import BestAdapter, Lines, StopOnSignal, StoppedError, Throughput
from lit.card import write_card
from lit.checkpoint import WholeCheckpointIO
from lit.console import say
from lit.folder import RunFolder
from lit.metrics import MetricsTable, losses
from lit.module import TrainingError
from lit.pictures import loss_picture
from lora.config import ConfigError
from lora.inject import count


def fit(arguments: Arguments) -> None:
    """Run a training: check, measure the base, train, write the run's folder.

    Raises:
        ConfigError, DataError: What the user asked for cannot be done.
        StoppedError: A signal came; the run can go on from ``last.ckpt``.
    """
    folder = RunFolder(arguments.config.output_dir)
    resume = arguments.config.ckpt_path
    checkpoint = folder.checkpoint(resume) if resume else None
    folder.check(resume=bool(resume), overwrite=arguments.config.overwrite)
    best = _start(arguments, folder)
    data, model, trainer = arguments.datamodule, arguments.model, arguments.trainer
    data.trainer = trainer
    data.setup()
    folder.prepare(resume=bool(resume))
    arguments.save(folder.config)
    if len(data.val_rows):
        folder.write_validation(data.held_out())
    _say_plan(arguments)
    if checkpoint is None:
        trainer.validate(model, data, verbose=False)
    trainer.fit(model, data, ckpt_path=checkpoint, weights_only=True)
    if best.judged < trainer.global_step:
        trainer.validate(model, data, verbose=False)
    _finish(arguments, folder, best)


def _start(arguments: Arguments, folder: RunFolder) -> BestAdapter:
    best = BestAdapter(folder)
    terminal = sys.stdout.isatty()
    progress = RichProgressBar() if terminal else Lines()
    arguments.start(
        callbacks=[best, Throughput(), StopOnSignal(folder), progress],
        default_root_dir=str(folder.path),
        enable_progress_bar=terminal,
        logger=[
            TensorBoardLogger(folder.path, name="tensorboard", version=""),
            MetricsTable(folder.metrics),
        ],
        plugins=[WholeCheckpointIO()],
    )
    return best


def _say_plan(arguments: Arguments) -> None:
    data, trainer = arguments.datamodule, arguments.trainer
    first = data.epoch(0)
    say(f"data   {data.source}: {data.store.ledger}")
    if data.val is not data.store:
        say(f"       {data.val_source}: {data.val.ledger}")
    if twice := str(data.overlap):
        say(f"       {twice}")
    say(
        f"       {len(data.train_rows)} rows train, {len(data.val_rows)} validate; "
        f"template {data.template}"
    )
    say(
        f"plan   {data.total_steps()} optimizer steps, {first.steps} in the first epoch of "
        f"{trainer.max_epochs}; {int(first.labels.sum())} of "
        f"{int(data.store.lengths[data.train_rows].sum())} tokens are learned"
    )


def _finish(arguments: Arguments, folder: RunFolder, best: BestAdapter) -> None:
    if not arguments.trainer.is_global_zero:
        return
    data, model = arguments.datamodule, arguments.model
    train, val = losses(folder.metrics)
    loss_picture(train, val, folder.picture)
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
        targets=model.lora.target_modules,
        step=best.step,
    )
    size = count(model.adapted_model)
    say(f"model  {size.trainable:,} of {size.total:,} parameters trained")
    if len(data.val_rows):
        change = best.loss / best.base_loss - 1
        say(
            f"loss   {best.base_loss:.4f} -> {best.loss:.4f} on held-out rows ({change:+.1%}), "
            f"best at step {best.step}"
        )
        if change >= 0:
            say("       the adapter is no better than the base on rows it has not seen")
    say(f"wrote  {folder.adapter}  {folder.picture}")
    say(f"see    tensorboard --logdir {folder.path}")


def main(args: list[str] | None = None) -> int:
    """Run the command."""
    console.quiet()
    models.quiet()
    try:
        fit(parse(sys.argv[1:] if args is None else args))
    except (ConfigError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except StoppedError as stopped:
        print(
            f"{stopped}: saved. Go on with the same command and --ckpt_path last", file=sys.stderr
        )
        return 128 + stopped.number
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
