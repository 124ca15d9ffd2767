"""Try lit-lora on the machine at hand: python -m lit.doctor [--device D] [--output FILE]

Takes about two minutes, needs no network and no model, and writes a page without names and paths
that you can send to the project.

Exit codes: 0 every check passed or does not apply; 1 a check failed.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from lit.messages import english, tr
from lit.run.command import flag_names, run_command
from lit.run.console import loading_libraries
from lit.settings.language import CommandParser, in_language


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="python -m lit.doctor", description=tr("Try lit-lora on the machine at hand.")
    )
    parser.add_argument("--device", default="auto", help=tr("auto, cpu, cuda or mps"))
    parser.add_argument(
        "--output", type=Path, default=Path("lit-lora-doctor.md"), help=tr("the page to write")
    )
    return parser


@in_language
def main(args: list[str]) -> int:
    """Run the command."""
    parser = _parser()
    return run_command(lambda: _examine(parser.parse_args(args)), flag_names(parser))


def _examine(options: argparse.Namespace) -> int:
    # torch, transformers and lightning take seconds: --help and a wrong flag do not wait for them.
    with loading_libraries():
        from lit.device.device import choose_device
        from lit.diagnosis.checks import CHECKS
        from lit.diagnosis.machine import Machine, run_check
        from lit.diagnosis.page import check_page, describe, render, write_page
        from lit.diagnosis.sample import MEDIUM
        from lit.model import base as models
        from lit.run import console

    console.quiet()
    models.quiet()
    device = choose_device(options.device)
    check_page(options.output)
    outcomes = []
    for name, fact in describe(device).items():
        print(f"{tr(name)}: {fact}")
    with tempfile.TemporaryDirectory(prefix="lit-lora-") as folder:
        machine = Machine(device, Path(folder), MEDIUM)
        for name, check in CHECKS.items():
            print(f"{tr(name)} …", flush=True)
            # The page is for the project: in English.
            with english():
                outcome = run_check(name, check, machine)
            outcomes.append(outcome)
            print(
                tr(
                    "  {result} after {seconds:.0f} s: {said}",
                    result=tr(outcome.result),
                    seconds=outcome.seconds,
                    said=outcome.text,
                ),
                flush=True,
            )
    with english():
        page = render(describe(device), outcomes)
    write_page(options.output, page)
    print(tr("wrote  {output}", output=options.output))
    return 1 if any(outcome.result == "failed" for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
