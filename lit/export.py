"""Write an adapter for other tools: python -m lit.export --adapter D --format peft|merged|gguf

What is written is read again and compared with the adapter before it is there.
"""

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path

ENDS = {"peft": "-peft", "merged": "-merged", "gguf": ".gguf"}
"""The formats, and what is added to the adapter's name where no --output is given."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lit.export",
        description="Write an adapter for other tools.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="peft    a folder that PEFT, vLLM and others load: one rank, a whole lora_alpha\n"
        "merged  a plain model folder, as lit.merge writes it; that has more options\n"
        "gguf    a file for llama.cpp: llama-server -m BASE.gguf --lora THIS.gguf",
    )
    parser.add_argument("--adapter", required=True, type=Path, help="an adapter's folder")
    parser.add_argument("--format", required=True, choices=tuple(ENDS), help="see below")
    parser.add_argument("--output", type=Path, help="what to make; by default beside the adapter")
    parser.add_argument("--base", help="the base model, if it is not where the adapter says")
    return parser


def main(args: list[str] | None = None) -> int:
    """Run the command."""
    options = _parser().parse_args(args)
    if options.format == "gguf" and find_spec("gguf") is None:
        print(
            "error: --format gguf needs the package gguf: "
            'python -m pip install -c constraints.txt -e ".[export]"',
            file=sys.stderr,
        )
        return 2
    # torch and transformers take seconds: --help and a wrong flag do not wait for them.
    from data.types import DataError
    from lit.model.base import quiet
    from lora.config import ConfigError

    quiet()
    output = options.output or _beside(options.adapter, options.format)
    try:
        proof = _write(options.format, output, options.adapter, options.base)
    except (ConfigError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(f"wrote  {output}")
    print(f"       {proof}")
    return 0


def _write(kind: str, output: Path, adapter: Path, base: str | None) -> str:
    """Write one format, and say how it was proved."""
    if kind == "gguf":
        from lit.exporting.gguf_lora import write_gguf

        layers = write_gguf(output, adapter, base)
        return f"read again, its {layers} layers compute the adapter's updates"
    if kind == "merged":
        from lit.exporting.merging import merge_into

        moved = merge_into(output, adapter, base)
    else:
        from lit.exporting.peft_folder import write_peft

        moved = write_peft(output, adapter, base)
    return f"loaded again, its logits differ from the adapter's by {moved:.1e} of their size"


def _beside(adapter: Path, kind: str) -> Path:
    # . and .. have no name of their own to add to.
    named = adapter if adapter.name not in ("", "..") else Path(os.path.abspath(adapter))
    return named.parent / (named.name + ENDS[kind])


if __name__ == "__main__":
    sys.exit(main())
