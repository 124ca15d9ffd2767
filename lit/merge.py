"""Fold an adapter into its base: python -m lit.merge --adapter D --output_dir D2

The result is a plain model folder, which transformers, vLLM and others load.
"""

import argparse
import sys
from pathlib import Path

from lit.messages import tr
from lit.run.command import flag_names, run_command
from lit.run.console import loading_libraries
from lit.settings.language import CommandParser, in_language

DTYPE_NAMES = ("float32", "bfloat16", "float16")


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="python -m lit.merge", description=tr("Fold an adapter into its base model.")
    )
    parser.add_argument("--adapter", required=True, type=Path, help=tr("an adapter's folder"))
    parser.add_argument("--output_dir", required=True, type=Path, help=tr("the folder to write"))
    parser.add_argument("--base", help=tr("the base model, if the adapter's path to it is wrong"))
    parser.add_argument(
        "--dtype", choices=DTYPE_NAMES, help=tr("dtype of the weights; default: the base's")
    )
    parser.add_argument(
        "--quantize",
        choices=("nf4", "fp4", "int8"),
        help=tr("how the base was quantized in training; prints how much the dense base differs"),
    )
    parser.add_argument(
        "--ollama", action="store_true", help=tr("also write a Modelfile for `ollama create`")
    )
    return parser


@in_language
def main(args: list[str]) -> int:
    """Run the command."""
    parser = _parser()
    return run_command(lambda: _merge(parser.parse_args(args)), flag_names(parser))


def _merge(options: argparse.Namespace) -> None:
    # torch and transformers take seconds to load: --help and a wrong flag do not wait for them.
    with loading_libraries():
        import torch

        from lit.exporting.merging import merge_into
        from lit.model.base import quiet

    quiet()
    moved = merge_into(
        options.output_dir,
        options.adapter,
        options.base,
        getattr(torch, options.dtype) if options.dtype else None,
        options.ollama,
        options.quantize,
    )
    print(tr("wrote  {output_dir}", output_dir=options.output_dir))
    print(
        tr(
            "       loaded again, its logits differ from the adapter's on the {quantize} base by "
            "{moved:.1e} (relative)",
            quantize=options.quantize,
            moved=moved,
        )
        if options.quantize
        else tr(
            "       loaded again, its logits differ from the adapter's by {moved:.1e} (relative)",
            moved=moved,
        )
    )
    if options.ollama:
        size = sum(path.stat().st_size for path in options.output_dir.iterdir())
        print(
            tr(
                "send   the folder {output_dir} ({size:.1f} MB)",
                output_dir=options.output_dir,
                size=size / 1e6,
            )
        )
        print(
            tr(
                "next   ollama create NAME -f {output_dir}",
                output_dir=options.output_dir / "Modelfile",
            )
        )


if __name__ == "__main__":
    sys.exit(main())
