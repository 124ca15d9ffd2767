"""Try lit-lora on the machine at hand: python -m lit.doctor [--device D] [--output FILE]

Takes about two minutes, needs no network and no model, and writes a page without names and paths
that you can send to the project.

Exit codes: 0 every check passed or does not apply; 1 a check failed.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from lit.run.command import flag_names, run_command
from lit.run.console import loading_libraries


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lit.doctor", description="Try lit-lora on the machine at hand."
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument(
        "--output", type=Path, default=Path("lit-lora-doctor.md"), help="the page to write"
    )
    return parser


def main(args: list[str] | None = None) -> int:
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
    facts, outcomes = describe(device), []
    for name, fact in facts.items():
        print(f"{name}: {fact}")
    with tempfile.TemporaryDirectory(prefix="lit-lora-") as folder:
        machine = Machine(device, Path(folder), MEDIUM)
        for name, check in CHECKS.items():
            print(f"{name} …", flush=True)
            outcomes.append(outcome := run_check(name, check, machine))
            print(f"  {outcome.result} after {outcome.seconds:.0f} s: {outcome.text}", flush=True)
    write_page(options.output, render(facts, outcomes))
    print(f"wrote  {options.output}")
    return 1 if any(outcome.result == "failed" for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
