"""Compare base and tuned: python -m lit.compare --adapter D [--data F] [--questions F]

Writes report.html, report.md and report.json, pictures, and the answers of both models.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from lit.messages import tr
from lit.run.command import add_template_kwargs, flag_names, run_command
from lit.run.console import loading_libraries
from lit.settings.language import CommandParser, in_language


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="python -m lit.compare", description=tr("Compare a base model with its adapter.")
    )
    parser.add_argument("--adapter", required=True, type=Path, help=tr("an adapter's folder"))
    parser.add_argument("--base", help=tr("the base model, if the adapter's path to it is wrong"))
    parser.add_argument(
        "--data", type=Path, help=tr("rows with answers; default: the rows that the run held out")
    )
    parser.add_argument(
        "--questions",
        type=Path,
        help=tr("questions: a .txt file with one per line, or a data file"),
    )
    parser.add_argument(
        "--votes", type=Path, help=tr("blind votes to show: the votes.json of lit.serve's page")
    )
    parser.add_argument("--output_dir", type=Path, help=tr("default: comparison/ of the run"))
    parser.add_argument(
        "--answers",
        type=int,
        help=tr("the most rows that both models answer; default: all, up to 500"),
    )
    parser.add_argument(
        "--budget",
        default="3m",
        help=tr(
            "time for matching and the rows' answers, such as 90s, 3m or 1h (3m); 10 rows are "
            "measured in any case"
        ),
    )
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        help=tr(
            "FILE.py:function of yours, which is run: (question, reference, answer) to a "
            "number, higher is better; may be given again"
        ),
    )
    parser.add_argument(
        "--template",
        default="auto",
        help=tr("as in lit.chat; none: the text of a question is continued"),
    )
    add_template_kwargs(parser)
    parser.add_argument(
        "--quantize",
        choices=("nf4", "fp4", "int8", "none"),
        help=tr("load the base's layers in 4 or 8 bits; default: as the run did"),
    )
    parser.add_argument(
        "--precision", help=tr("as trainer.precision of lit.fit; default: that of the run")
    )
    parser.add_argument("--device", default="auto", help=tr("auto, cpu, cuda or mps"))
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--top_p", type=float, default=1.0)
    parser.add_argument("--max_new_tokens", type=int, default=160)
    parser.add_argument(
        "--batch_size", type=int, default=16, help=tr("answers generated at a time")
    )
    return parser


@in_language
def main(args: list[str]) -> int:
    """Run the command."""
    parser = _parser()
    return run_command(lambda: _compare(parser.parse_args(args)), flag_names(parser))


def _compare(options: argparse.Namespace) -> int:
    # torch and transformers take seconds to load: --help and a wrong flag do not wait for them.
    with loading_libraries():
        from lit.answering.sampling import Sampling
        from lit.comparison import report
        from lit.comparison.comparison import compare
        from lit.comparison.folder import replacing_comparison
        from lit.comparison.result import is_valid
        from lit.comparison.votes import read_votes
        from lit.measures.own import load_metric
        from lit.model.base import quiet
        from lit.run.card import add_comparison
        from lit.settings.budget import parse_duration

    quiet()
    folder = options.output_dir or options.adapter.absolute().parent / "comparison"
    sampling = Sampling(options.seed, options.temperature, options.top_p, options.max_new_tokens)
    budget, metrics = parse_duration(options.budget), [load_metric(x) for x in options.metric]
    votes = read_votes(options.votes) if options.votes else None
    print(
        tr(
            "budget {budget} for matching and the answers to the rows (--budget)",
            budget=options.budget,
        ),
        flush=True,
    )
    with replacing_comparison(folder, [options.data, options.questions, options.votes]) as new:
        result = compare(
            adapter=options.adapter,
            base=options.base,
            data=options.data,
            questions_file=options.questions,
            folder=new,
            max_answers=options.answers,
            budget=budget,
            metrics=metrics,
            template=options.template,
            template_kwargs=options.template_kwargs,
            quantize=options.quantize,
            precision=options.precision,
            device=options.device,
            batch_size=options.batch_size,
            sampling=sampling,
        )
        result = replace(result, votes=votes)
        report.write(result, new)
    report.show(result)
    # The card has the run's own rows, in the run's own template.
    own = options.data is None and options.base is None and options.template == "auto"
    if own and result.loss is not None and is_valid(result):
        add_comparison(options.adapter, report.card_text(result))
    print(tr("wrote  {folder}", folder=folder / "report.html"))
    # A comparison of numbers that are not finite is a failure, and its report says so.
    return 0 if is_valid(result) else 1


if __name__ == "__main__":
    sys.exit(main())
