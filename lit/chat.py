"""Talk to a model: python -m lit.chat --adapter D  (or --base NAME)

Reads questions from a terminal, from a pipe (one per line), or from --prompt.
"""

import argparse
import sys
from typing import TYPE_CHECKING

from data.text import clean
from lit.messages import tr
from lit.run.command import add_template_kwargs, flag_names, run_command
from lit.run.console import loading_libraries
from lit.run.streams import check_stdout
from lit.settings.language import CommandParser, in_language

if TYPE_CHECKING:
    from lit.answering.conversation import Conversation


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="python -m lit.chat", description=tr("Talk to a model."))
    parser.add_argument("--adapter", help=tr("an adapter's folder"))
    parser.add_argument("--base", help=tr("the base model, alone or under the adapter"))
    parser.add_argument("--prompt", help=tr("answer this question and exit"))
    parser.add_argument("--system", default="", help=tr("the system text"))
    parser.add_argument(
        "--quantize",
        choices=("nf4", "fp4", "int8", "none"),
        help=tr("load the base's layers in 4 or 8 bits; default: as the adapter was trained"),
    )
    parser.add_argument("--device", default="auto", help=tr("auto, cpu, cuda or mps"))
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        help=tr("0 (the default) takes the most likely token"),
    )
    parser.add_argument("--top_p", type=float, default=1.0)
    parser.add_argument("--max_new_tokens", type=int, default=256)
    parser.add_argument(
        "--template",
        default="auto",
        help=tr(
            "auto: the adapter's, else the model's; plain; a Jinja file; none: continue the text"
        ),
    )
    add_template_kwargs(parser)
    return parser


@in_language
def main(args: list[str]) -> int:
    """Run the command."""
    parser = _parser()
    return run_command(lambda: _chat(parser.parse_args(args)), flag_names(parser))


def _chat(options: argparse.Namespace) -> None:
    conversation = _open(options)
    if options.prompt is not None:
        conversation.ask(options.prompt)
    elif sys.stdin.isatty():
        _talk(conversation)
    else:
        _answer_lines(conversation)


def _open(options: argparse.Namespace) -> "Conversation":
    # torch and transformers take seconds to load: --help and a wrong flag do not wait for them.
    with loading_libraries():
        import torch

        from lit.answering.conversation import Conversation
        from lit.answering.sampling import Sampling
        from lit.fast_layers.table import use_fast_answers
        from lit.model.base import quiet
        from lit.model.placement import place
        from lit.model.tuned import base_config, chosen_quantization, load, read_base_config
        from lora.config import ConfigError

    quiet()
    sampling = Sampling(options.seed, options.temperature, options.top_p, options.max_new_tokens)
    if not (options.adapter or options.base):
        raise ConfigError(tr("give --adapter D, or --base NAME"))
    adapter, base = options.adapter, options.base
    quantize = chosen_quantization(adapter, options.quantize)
    config = base_config(adapter, base) if adapter else read_base_config(base, None)
    device, dtype, note = place(config, options.device, quantize)
    if (device.type, dtype) != ("cpu", torch.float32):
        print(tr("model  {note}", note=note), file=sys.stderr)
    print(tr("loading the model …"), file=sys.stderr, flush=True)
    model, tokenizer = load(
        adapter, base, options.template, quantize, dtype, device, options.template_kwargs
    )
    use_fast_answers(model)
    return Conversation(model, tokenizer, sampling, bool(options.adapter), _write, options.system)


def _write(text: str) -> None:
    print(text, end="", flush=True)
    check_stdout()


def _answer_lines(conversation: "Conversation") -> None:
    """Answer each line of a pipe; a transcript repeats the question above its answer."""
    for line in map(str.strip, sys.stdin):
        if line:
            _write(f"> {clean(line)}\n")
            if not conversation.handle(line):
                return
            _write("\n")


def _talk(conversation: "Conversation") -> None:
    """Read questions from a terminal until /quit or the end of input."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    from data.types import DataError
    from lora.config import ConfigError

    keys = KeyBindings()

    @keys.add("escape", "enter")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    session: PromptSession[str] = PromptSession(key_bindings=keys)
    _write(tr("/help lists the commands\n"))
    while True:
        try:
            text = session.prompt("> ").strip()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        try:
            if text and not conversation.handle(text):
                return
        except (ConfigError, DataError) as error:
            # The conversation so far is worth more than one question.
            _write(f"{clean(str(error))}\n")


if __name__ == "__main__":
    sys.exit(main())
