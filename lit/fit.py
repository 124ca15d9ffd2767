"""Train: python -m lit.fit --config F [--ckpt_path last|FILE] [--output_dir D] [any override]

Exit codes: 0 done; 2 the settings or the data are wrong; 1 failure; 130, 143 stopped by a signal
after saving.
"""

import math
import sys

from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger

from data.step_map import describe_step_change
from data.types import DataError
from lit.distributed.ranks import Ranks, unreachable
from lit.fitting.summary import say_end, say_plan
from lit.model import base as models
from lit.preflight.forecast import forecast
from lit.preflight.verdict import judge, refuse
from lit.report.pictures import loss_picture
from lit.resume.checkpoint import AtomicCheckpointIO
from lit.resume.resume_point import ResumePoint, ResumeState
from lit.resume.settings_diff import Settings, check_settings, digests, same_end, settings
from lit.resume.stopping import StopOnSignal, StoppedError
from lit.run import console
from lit.run.card import write_card
from lit.run.console import print_rank0
from lit.run.folder import RunFolder
from lit.run.memory import retain_heap
from lit.run.metrics import MetricsTable, losses
from lit.settings.arguments import Arguments, parse
from lit.train.callbacks import BestAdapter, ProgressLines, SampleAnswers, Throughput
from lit.train.longest_batch import LOWER, LongestBatchTrial, out_of_memory
from lit.train.step_guard import TrainingError
from lora.config import ConfigError


def fit(arguments: Arguments, ranks: Ranks) -> None:
    """Run a training: check, measure the base, train, write the run's folder.

    Args:
        arguments: Its settings.
        ranks: Of which this process is one.

    Raises:
        ConfigError, DataError: What the user asked for cannot be done.
        StoppedError: A signal came; the run can go on from ``last.ckpt``.
    """
    folder = RunFolder(arguments.config.output_dir)
    resume = arguments.config.ckpt_path
    with folder.claimed(resume=bool(resume), overwrite=arguments.config.overwrite):
        resume_point = ResumePoint.find(folder, resume) if resume else ResumePoint()
        now = settings(arguments.settings())
        lines = check_settings(resume_point.settings, now)
        ended = resume_point.path == folder.last and folder.picture.is_file()
        if ended and same_end(resume_point.settings, now):
            print_rank0(
                f"resume {folder.path} is already complete: {resume_point.step} optimizer steps"
            )
            print_rank0(
                "       train longer by trainer.max_epochs, or anew in another --output_dir"
            )
            return
        _run(arguments, ranks, folder, resume_point, now, lines)


def _run(
    arguments: Arguments,
    ranks: Ranks,
    folder: RunFolder,
    resume_point: ResumePoint,
    now: Settings,
    lines: list[str],
) -> None:
    best, throughput, stop = BestAdapter(folder), Throughput(), StopOnSignal(folder)
    resume_state = ResumeState(now, resume_point)
    _start(arguments, folder, resume_point, [best, throughput, stop, resume_state, SampleAnswers()])
    data, model, trainer = arguments.datamodule, arguments.model, arguments.trainer
    data.trainer = trainer
    with stop:
        data.setup()
        rows = digests(data)
        now |= rows
        check_settings(resume_point.settings, now)
        if resume_point.path:
            data.resume_from(resume_point.step_map, resume_point.step)
        if (
            resume_point.step
            and resume_point.step >= data.total_steps()
            and folder.picture.is_file()
        ):
            print_rank0(
                f"resume {folder.path} is already complete: {resume_point.step} optimizer steps"
            )
            return
        reasons = judge(arguments, forecast(arguments))
        refuse(reasons, arguments.config.force)
        ranks.meet(trainer)
        ranks.agree(rows | {"the checkpoint's step": str(resume_point.step)})
        if trainer.is_global_zero:
            _prepare(arguments, folder, resume=bool(resume_point.path))
        say_plan(arguments)
        for reason in reasons:
            print_rank0(f"check  {reason.text}")
        if resume_point.path:
            print_rank0(f"resume {resume_point.path}, after step {resume_point.step}")
            for line in [*lines, *describe_step_change(data.step_map, resume_point.step)]:
                print_rank0(f"       {line}")
        else:
            trainer.validate(model, data, verbose=False)
        trainer.fit(model, data, ckpt_path=resume_point.path, weights_only=True)
        if best.judged < trainer.global_step:
            trainer.validate(model, data, verbose=False)
        if trainer.is_global_zero:
            _write(arguments, folder, best)
            say_end(arguments, folder, best, throughput)


def _prepare(arguments: Arguments, folder: RunFolder, resume: bool) -> None:
    folder.prepare(resume)
    arguments.save(folder.config)
    if len(arguments.datamodule.val_rows):
        folder.write_validation(arguments.datamodule.held_out())


def _start(
    arguments: Arguments, folder: RunFolder, resume_point: ResumePoint, callbacks: list[Callback]
) -> None:
    terminal = sys.stdout.isatty()
    arguments.start(
        callbacks=[
            *callbacks,
            RichProgressBar() if terminal else ProgressLines(),
            LongestBatchTrial(),
        ],
        default_root_dir=str(folder.path),
        enable_progress_bar=terminal,
        logger=[
            TensorBoardLogger(folder.path, name="tensorboard", version=""),
            MetricsTable(folder.metrics, done=resume_point.step),
        ],
        plugins=[AtomicCheckpointIO()],
    )


def _write(arguments: Arguments, folder: RunFolder, best: BestAdapter) -> None:
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


def main(args: list[str] | None = None) -> int:
    """Run the command."""
    console.quiet()
    models.quiet()
    ranks = Ranks()
    try:
        ranks.join()
        retain_heap()
        fit(parse(sys.argv[1:] if args is None else args), ranks)
    except (ConfigError, DataError) as error:
        return ranks.end(2, str(error))
    except StoppedError as stopped:
        return ranks.end(128 + stopped.number, str(stopped))
    except KeyboardInterrupt:
        return ranks.end(130)
    except TrainingError as error:
        return ranks.end(1, str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return ranks.end(1, f"{where}{error.strerror or error}")
    except (MemoryError, RuntimeError) as error:
        if out_of_memory(error):
            return ranks.end(1, f"out of memory. {LOWER}")
        if ranks.size > 1 and unreachable(error):
            return ranks.end(1, lost=True)
        ranks.end(1)
        raise
    except BaseException:
        ranks.end(1)
        raise
    return ranks.end(0)


if __name__ == "__main__":
    sys.exit(main())
