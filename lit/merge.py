"""Fold an adapter into its base: python -m lit.merge --adapter D --output_dir D2

The folder that comes out is a plain model: transformers, vLLM and others load it as any other.
"""

import argparse
import sys
from pathlib import Path

DTYPE_NAMES = ("float32", "bfloat16", "float16")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lit.merge", description="Fold an adapter into its base model."
    )
    parser.add_argument("--adapter", required=True, type=Path, help="an adapter's folder")
    parser.add_argument("--output_dir", required=True, type=Path, help="the folder to make")
    parser.add_argument("--base", help="the base model, if it is not where the adapter says")
    parser.add_argument(
        "--dtype", choices=DTYPE_NAMES, help="of the weights; by default the base's"
    )
    parser.add_argument(
        "--quantize",
        choices=("nf4", "fp4", "int8"),
        help="the adapter was trained on such a base: say how far its original is from that",
    )
    parser.add_argument(
        "--ollama", action="store_true", help="write a Modelfile for `ollama create` too"
    )
    return parser


def main(args: list[str] | None = None) -> int:
    """Run the command."""
    options = _parser().parse_args(args)
    # torch and transformers take seconds: --help and a wrong flag do not wait for them.
    import torch

    from data.types import DataError
    from lit.exporting.merging import merge_into
    from lit.model.base import quiet
    from lora.config import ConfigError

    quiet()
    try:
        moved = merge_into(
            options.output_dir,
            options.adapter,
            options.base,
            getattr(torch, options.dtype) if options.dtype else None,
            options.ollama,
            options.quantize,
        )
    except (ConfigError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote  {options.output_dir}")
    below = f" on the {options.quantize} base" if options.quantize else ""
    print(
        f"       loaded again, its logits differ from the adapter's{below} by {moved:.1e} "
        "of their size"
    )
    if options.ollama:
        print(f"       ollama create NAME -f {options.output_dir / 'Modelfile'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
