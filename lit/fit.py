"""Train: python -m lit.fit --config F [--ckpt_path last|FILE] [--output_dir D] [any override]"""

import sys
import warnings
from pathlib import Path

from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from data.types import DataError
from lit.arguments import Arguments, parse
from lit.callbacks import BestAdapter, Lines, Throughput
from lit.checkpoint import WholeCheckpointIO
from lit.folder import RunFolder
from lora.config import ConfigError


def fit(arguments: Arguments) -> int:
    config = arguments.config
    folder = RunFolder(config.output_dir)
    resume = config.ckpt_path
    folder.claim(bool(resume), config.overwrite)
    checkpoint = folder.checkpoint(resume) if resume else None
    best = BestAdapter(folder)
    arguments.start(
        default_root_dir=str(folder.path),
        callbacks=[best, Throughput(), RichProgressBar() if sys.stdout.isatty() else Lines()],
        logger=[
            TensorBoardLogger(folder.path, name="tensorboard", version=""),
            CSVLogger(folder.path, name="", version=""),
        ],
        plugins=[WholeCheckpointIO()],
        enable_progress_bar=sys.stdout.isatty(),
    )
    data, model, trainer = arguments.datamodule, arguments.model, arguments.trainer
    data.setup()
    print(data.train.ledger)
    arguments.parser.save(config, folder.config, overwrite=True, skip_none=False)
    folder.write_validation(data.path, {int(x) for x in data.val.lines[data.val_rows]})
    if not resume:
        trainer.validate(model, data, verbose=False)
    trainer.fit(model, data, ckpt_path=str(checkpoint) if checkpoint else None, weights_only=True)
    print("best", best.loss, best.step)
    return 0


def main(args: list[str] | None = None) -> int:
    """Run the command; see the module's docstring for exit codes."""
    try:
        return fit(parse(sys.argv[1:] if args is None else args))
    except (ConfigError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
