"""Write an adapter for other tools: python -m lit.export --adapter D --format peft|merged|gguf

The result is read back and compared with the adapter before it appears.
"""

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from lit.messages import tr
from lit.run.command import flag_names, run_command
from lit.run.console import loading_libraries
from lit.settings.language import CommandParser, in_language

SUFFIXES = {"peft": "-peft", "merged": "-merged", "gguf": ".gguf"}
"""The formats, and what is added to the adapter's name if --output is not given."""


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="python -m lit.export",
        description=tr("Write an adapter for other tools."),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=tr(
            "peft    a folder that PEFT, vLLM and others load: one rank, an integer lora_alpha\n"
            "merged  a plain model folder, as lit.merge writes it (lit.merge has more options)\n"
            "gguf    a file for llama.cpp: llama-server -m BASE.gguf --lora THIS.gguf"
        ),
    )
    parser.add_argument("--adapter", required=True, type=Path, help=tr("an adapter's folder"))
    parser.add_argument("--format", required=True, choices=tuple(SUFFIXES), help=tr("see below"))
    parser.add_argument(
        "--output", type=Path, help=tr("where to write; default: beside the adapter")
    )
    parser.add_argument("--base", help=tr("the base model, if the adapter's path to it is wrong"))
    parser.add_argument(
        "--ollama", action="store_true", help=tr("also write a Modelfile; for merged and gguf")
    )
    return parser


@in_language
def main(args: list[str]) -> int:
    """Run the command."""
    parser = _parser()
    return run_command(lambda: _export(parser.parse_args(args)), flag_names(parser))


def _export(options: argparse.Namespace) -> int:
    if options.format == "gguf" and find_spec("gguf") is None:
        print(
            tr(
                "error: --format gguf needs the package gguf: python -m pip install -c "
                'constraints.txt -e ".[export]"'
            ),
            file=sys.stderr,
        )
        return 2
    # torch and transformers take seconds to load: --help and a wrong flag do not wait for them.
    with loading_libraries():
        from lit.model.base import quiet

    quiet()
    output = options.output or _beside(options.adapter, options.format)
    if options.ollama and options.format == "peft":
        print(tr("error: --ollama needs --format merged or gguf"), file=sys.stderr)
        return 2
    lines = _write(options.format, output, options.adapter, options.base, options.ollama)
    print(tr("wrote  {output}", output=output))
    for line in lines:
        print(f"       {line}")
    if options.ollama:
        _print_ollama(output, options.adapter, options.base)
    return 0


def _print_ollama(output: Path, adapter: Path, base: str | None) -> None:
    """Print which files Ollama's machine needs, with their sizes."""
    from lit.exporting.gguf_lora import MODELFILE
    from lit.exporting.shards import checkpoint_size
    from lit.model.tuned import base_of

    if output.is_dir():
        file, size = output / "Modelfile", sum(path.stat().st_size for path in output.iterdir())
        print(tr("send   the folder {output} ({size:.1f} MB)", output=output, size=size / 1e6))
    else:
        file, name = output.with_suffix(MODELFILE), base_of(adapter, base)[0]
        size = checkpoint_size(*base_of(adapter, base))
        print(f"       {file}")
        print(
            tr(
                "send   {modelfile}, {name} ({size:.1f} MB),",
                modelfile=file.name,
                name=output.name,
                size=output.stat().st_size / 1e6,
            )
        )
        print(
            tr(
                "       and the base {name} ({size:.1f} MB), as ./{last} beside them",
                name=name,
                size=size / 1e6,
                last=Path(name).name,
            )
        )
        print(tr("       Where Ollama has the base already, write its name after FROM instead."))
    print(tr("next   ollama create NAME -f {file}", file=file))


def _write(kind: str, output: Path, adapter: Path, base: str | None, ollama: bool) -> list[str]:
    """Write one format; return how it was verified, and what to know before it is used."""
    if kind == "gguf":
        from lit.exporting.gguf_lora import write_gguf

        layers = write_gguf(output, adapter, base, ollama)
        return [tr("read back, its {layers} layers compute the adapter's updates", layers=layers)]
    note = ""
    if kind == "merged":
        from lit.exporting.merging import merge_into

        moved = merge_into(output, adapter, base, ollama=ollama)
    else:
        from lit.exporting.peft_folder import write_peft

        moved, note = write_peft(output, adapter, base)
    proof = tr(
        "reloaded, its logits differ from the adapter's by {moved:.1e} (relative)", moved=moved
    )
    return [proof, note] if note else [proof]


def _beside(adapter: Path, kind: str) -> Path:
    # . and .. have no name to add a suffix to.
    named = adapter if adapter.name not in ("", "..") else Path(os.path.abspath(adapter))
    return named.parent / (named.name + SUFFIXES[kind])


if __name__ == "__main__":
    sys.exit(main())
