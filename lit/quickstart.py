"""Train an adapter on the embedded model and compare it with its base: python -m lit.quickstart

Fetches the embedded model, trains with configs/quickstart.yaml and writes the comparison. A step
that is done is not done again. Run it in the clone, after its packages are installed.
"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from lit.embedded import FOLDER
from lit.messages import tr, tr_n
from lit.run.command import Terminated, run_command
from lit.settings.language import CommandParser, in_language
from lora.config import ConfigError

CONFIG = Path("configs/quickstart.yaml")
RUN = Path("runs/quickstart")
BATCH = "32"
"""Answers at a time; a model as small as this one has memory for them."""
PACKAGES = ("gguf", "accelerate")
"""What unpacks the embedded model, besides what every command needs."""


class _StepFailedError(Exception):
    """A step ended with an exit code that is not 0, and has said why.

    Args:
        exit_code: That code.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__("")
        self.exit_code = exit_code


@in_language
def main(args: list[str]) -> int:
    """Run the command."""
    parser = CommandParser(
        description=tr("Train an adapter on the embedded model, and compare it with its base.")
    )

    def run() -> None:
        parser.parse_args(args)
        _quickstart()

    return run_command(run, {})


def _quickstart() -> None:
    if not CONFIG.is_file():
        raise ConfigError(
            tr(
                "there is no {config}: change to the folder of lit-lora's clone first",
                config=CONFIG,
            )
        )
    # The picture is a run's last file: without it, the run did not come to its end.
    picture, report = RUN / "loss.png", RUN / "comparison" / "report.html"
    adapter = str(RUN / "adapter")
    if not picture.is_file():
        if not (FOLDER / "config.json").is_file():
            _check_packages()
            _announce(tr("fetch the embedded model"))
            _run("lit.embedded")
        _announce(tr("train the adapter (minutes; the command prints how long)"))
        _run("lit.fit", "--config", str(CONFIG), "--overwrite", "true")
    if not report.is_file() or report.stat().st_mtime < picture.stat().st_mtime:
        _announce(tr("compare it with its base (a few minutes)"))
        _run("lit.compare", "--adapter", adapter, "--batch_size", BATCH)
    python = _python()
    print(tr("adapter     {adapter}", adapter=adapter))
    print(tr("comparison  {report}", report=report))
    print(tr("losses      {python} -m tensorboard.main --logdir {run}", python=python, run=RUN))
    print(
        tr("talk to it  {python} -m lit.chat --adapter {adapter}", python=python, adapter=adapter)
    )


def _announce(step: str) -> None:
    print(tr("quickstart: {step}", step=step), file=sys.stderr, flush=True)


def _check_packages() -> None:
    """Check that the packages that only this command needs are installed.

    Raises:
        ConfigError: Some are not.
    """
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise ConfigError(
            tr_n(
                "{missing} is not installed: run {python} -m pip install -c constraints.txt -e "
                '".[quickstart]"',
                "{missing} are not installed: run {python} -m pip install -c constraints.txt -e "
                '".[quickstart]"',
                len(missing),
                missing=tr(" and ").join(missing),
                python=_python(),
            )
        )


def _run(module: str, *arguments: str) -> None:
    """Run a command of the project in a process of its own.

    Raises:
        _StepFailedError: It failed or was stopped.
    """
    # Training starts other processes with the command line of its own process.
    with subprocess.Popen([sys.executable, "-m", module, *arguments]) as process:
        while True:
            try:
                code = process.wait()
                break
            except KeyboardInterrupt:
                continue  # Ctrl-C reached the command too: it saves the run and ends
            except Terminated:
                process.terminate()
    if code:
        # Negative is the signal that ended it, on POSIX.
        raise _StepFailedError(code if code > 0 else 128 - code)


def _python() -> str:
    """Return what a person types to start this interpreter."""
    executable = Path(sys.executable)
    here = Path.cwd()
    return str(executable.relative_to(here)) if executable.is_relative_to(here) else "python"


if __name__ == "__main__":
    sys.exit(main())
