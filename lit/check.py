"""Before training: python -m lit.check --config F [any override]

Says what a run of ``lit.fit`` with the same arguments would do, and whether it can work; loads the
tokenizer and the model's config, and no weight. Writes ``check.html`` into the run's folder.

Exit codes: 0 it works, perhaps with warnings; 2 it cannot work.
"""

import sys
import tempfile
from pathlib import Path

from data.types import DataError
from lit.distributed.sharding import ShardedStrategy
from lit.model import base as models
from lit.preflight.checkup import Checkup, sections
from lit.preflight.estimate import estimate
from lit.preflight.finding import Finding
from lit.preflight.forecast import forecast, largest
from lit.preflight.verdict import judge
from lit.report.page import show_page, write_page
from lit.run import console
from lit.run.memory import total
from lit.settings.arguments import Arguments, parse
from lora.config import ConfigError


def examine(arguments: Arguments) -> Checkup:
    """Find out all that can be known before a weight is loaded.

    Raises:
        ConfigError, DataError: The run cannot even be planned.
    """
    arguments.start(callbacks=[], logger=False, enable_progress_bar=False)
    data, trainer = arguments.datamodule, arguments.trainer
    data.trainer = trainer
    data.setup()
    planned = forecast(arguments)
    reasons = judge(arguments, planned)
    device = trainer.strategy.root_device
    needed = estimate(arguments.model, str(trainer.precision), *largest(arguments, planned), device)
    there = total(device)
    # Processes on a CPU share its memory; how much a sharded base needs is told nowhere yet.
    processes = trainer.num_devices if device.type == "cpu" else 1
    sharded = isinstance(trainer.strategy, ShardedStrategy)
    if there is not None and needed.peak * processes > there and not sharded:
        each = f" by each of {processes} processes" if processes > 1 else ""
        reasons.append(
            Finding(
                f"about {needed.peak / 1e9:.1f} GB of memory are needed{each}, and there are "
                f"{there / 1e9:.1f}: lower data.batch_size or data.max_length, or set "
                "model.gradient_checkpointing to true"
            )
        )
    return Checkup(arguments, planned, needed, reasons)


def write(found: Checkup, folder: Path) -> Path:
    """Write the page into a run's folder, of which nothing else is touched."""
    path = folder / "check.html"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as pictures:
        page = sections(found, Path(pictures))
        write_page(path, f"Check of {folder}", page, Path(pictures))
    return path


def main(args: list[str] | None = None) -> int:
    """Run the command."""
    console.quiet()
    models.quiet()
    about = ("python -m lit.check", "Say what a run of lit.fit would do, before it loads a model.")
    try:
        arguments = parse(sys.argv[1:] if args is None else args, *about)
        found = examine(arguments)
    except (ConfigError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    show_page(sections(found, None))
    try:
        print(f"wrote  {write(found, Path(arguments.config.output_dir))}")
    except OSError as error:
        print(f"the page is not written: {error}", file=sys.stderr)
    return 2 if found.fatal else 0


if __name__ == "__main__":
    sys.exit(main())
