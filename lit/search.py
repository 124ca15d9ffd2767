"""Find settings: python -m lit.search --config F --budget 30m [any override of lit.fit]

Tries settings on the rows of a run, and writes report.html, trials.csv, best.yaml and adapter/.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lit.messages import tr, tr_mark
from lit.run.command import flag_names, run_command
from lit.run.console import loading_libraries
from lit.settings.language import CommandParser, in_language

if TYPE_CHECKING:
    from lit.searching.search import Searching
    from lit.settings.arguments import Arguments


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="python -m lit.search",
        description=tr("Try settings on the rows of a run, within a time budget."),
        epilog=tr(
            "--config F and every setting of lit.fit can be given too: python -m lit.fit --help"
        ),
        allow_abbrev=False,
    )
    parser.add_argument("--budget", help=tr("time for the whole search, such as 30m or 2h"))
    parser.add_argument("--trials", type=int, help=tr("settings to try, instead of a time"))
    parser.add_argument(
        "--space",
        type=Path,
        help=tr(
            "a YAML file of what to vary, such as `model.lr: {low: 1e-5, high: 1e-2, log: true}` "
            "and `model.lora.r: [4, 8, 16]`; default: lr, r and target_modules"
        ),
    )
    parser.add_argument(
        "--output_dir", type=Path, help=tr("default: search/ in the output_dir of the config")
    )
    parser.add_argument(
        "--storage",
        help=tr(
            "where trials are stored: a file, or sqlite://, postgresql:// or mysql://; processes "
            "that name one storage share the search; default: a file in the output folder"
        ),
    )
    parser.add_argument("--seed", type=int, help=tr("what is drawn; default: seed_everything"))
    parser.add_argument(
        "--dry_run", action="store_true", help=tr("time a few steps, say what fits, and end")
    )
    return parser


@in_language
def main(args: list[str]) -> int:
    """Run the command."""
    parser, started = _parser(), time.monotonic()
    known = {"budget": "--budget"}
    return run_command(
        lambda: _search(*parser.parse_known_args(args), started), flag_names(parser) | known
    )


def _search(options: argparse.Namespace, settings: list[str], started: float) -> int:
    with loading_libraries():
        from lora.config import ConfigError

        try:
            import optuna
        except ImportError:
            raise ConfigError(
                tr(
                    "lit.search needs one more package: pip install -c constraints.txt -e "
                    "'.[search]'"
                )
            ) from None
        del optuna
        from lit.model import base as models
        from lit.run import console
        from lit.settings.arguments import parse, setting_names

    console.quiet()
    models.quiet()

    def search() -> int:
        description = tr_mark("Try settings on the rows of a run.")
        arguments = parse(settings, "python -m lit.search", description)
        return _run(options, arguments, started)

    return run_command(search, setting_names() | flag_names(_parser()))


def _run(options: argparse.Namespace, arguments: "Arguments", started: float) -> int:
    from lit.device.memory import retain_heap
    from lit.preflight.forecast import forecast
    from lit.preflight.verdict import judge, refuse
    from lit.resume.settings_diff import rows_digest, to_json
    from lit.searching.planner import Planner
    from lit.searching.results import claimed, identity, name_of
    from lit.searching.setup import assemble, choose_space, prepare, reason_not_to_choose
    from lit.searching.trials.ledger import Ledger
    from lit.searching.trials.storage import open_storage
    from lit.searching.workbench import Workbench
    from lit.settings.budget import parse_duration
    from lora.config import ConfigError

    if (options.budget is None) == (options.trials is None):
        raise ConfigError(tr("give either --budget, such as 30m, or --trials, such as 20"))
    if options.trials is not None and options.trials < 1:
        raise ConfigError(tr("--trials is {n}: give 1 or more", n=options.trials))
    budget = parse_duration(options.budget) if options.budget else None
    prepare(arguments)
    retain_heap()
    space, seed = choose_space(options.space, arguments), options.seed
    seed = int(arguments.config.seed_everything) if seed is None else seed
    folder = options.output_dir or Path(arguments.config.output_dir) / "search"
    bench = Workbench(arguments)
    rows = rows_digest(bench.data)
    known = identity(to_json(arguments.settings()), rows, repr(space.dimensions), seed)
    refuse(judge(arguments, forecast(arguments)), arguments.config.force)
    trials = options.trials
    if reason := reason_not_to_choose(bench):
        trials, budget = 1, None
        print(reason, flush=True)
    choose, report = map(len, bench.labels())
    print(
        tr(
            "rows   {train} rows train, {choose} choose, {report} report",
            train=len(bench.data.train_rows),
            choose=choose,
            report=report,
        )
    )
    print(tr("space  {space}", space=space.describe()), flush=True)
    with claimed(folder, known, arguments.config.overwrite):
        ledger = Ledger(
            open_storage(options.storage, folder), name_of(known), str(folder.resolve())
        )
        planner = Planner(space, seed)
        searching = assemble(bench, ledger, folder, planner, trials, budget, started)
        searching.measure()
        if options.dry_run:
            return 0
        return _finish(searching)


def _finish(searching: "Searching") -> int:
    """Run the search, decide, and write what it found."""
    from lit.searching.outcome.decision import decide
    from lit.searching.outcome.report import summary_lines, write_report
    from lit.searching.results import write_best, write_report_rows

    search, folder, bench = searching.run(), searching.folder, searching.bench
    signal = searching.signals.number
    code = 0 if signal is None else 128 + signal
    if search is None:
        print(tr("search ended before the config's own settings had a result"), flush=True)
        return code
    decision = decide(search)
    write_report(search, decision, folder)
    for i, line in enumerate(summary_lines(search, decision)):
        print(f"       {line}" if i else tr("result {decision}", decision=line))
    wrote = [folder / "report.html"]
    if decision.winner is not None:
        number, job = searching.kept(decision.winner)
        wrote += write_best(bench, folder, job, number, decision.sentence)
        write_report_rows(bench, folder)
    print(tr("wrote  {files}", files=", ".join(map(str, wrote))))
    if decision.winner is not None and len(wrote) > 2:
        print(f"next   python -m lit.compare --adapter {wrote[-1]}")
    elif decision.winner is not None:
        print(f"next   python -m lit.fit --config {wrote[-1]}")
    if signal is not None:
        print(tr("       stopped by a signal; the same command goes on"), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
