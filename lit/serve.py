"""Serve a model: python -m lit.serve --adapter D  (or --base NAME)

Opens OpenAI's interface on this machine, and a page that shows base and tuned side by side.
"""

import argparse
import os
import sys
from typing import TYPE_CHECKING

from lit.messages import tr
from lit.run.command import flag_names, run_command
from lit.run.console import loading_libraries
from lit.settings.language import CommandParser, in_language

if TYPE_CHECKING:
    import torch

KEY = "LIT_LORA_API_KEY"
DTYPES = ("auto", "float32", "bfloat16", "float16")


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="python -m lit.serve",
        description=tr("Serve a model: OpenAI's interface, and a page with base and tuned."),
    )
    parser.add_argument(
        "--adapter",
        action="append",
        default=[],
        help=tr("an adapter's folder; several: --adapter NAME=FOLDER, once for each"),
    )
    parser.add_argument("--base", help=tr("the base model, alone or under the adapters"))
    parser.add_argument("--host", default="127.0.0.1", help=tr("the address to listen on"))
    parser.add_argument("--port", type=int, default=8000, help=tr("0: any that is free"))
    parser.add_argument(
        "--api_key",
        default=os.environ.get(KEY),
        help=tr(
            "what requests must send; needed if other machines can reach --host; other users of "
            "this machine see a flag, so it may stand in the environment variable {key}",
            key=KEY,
        ),
    )
    parser.add_argument("--device", default="auto", help=tr("auto, cpu, cuda or mps"))
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help=tr("of the base's weights"))
    parser.add_argument(
        "--quantize",
        choices=("nf4", "fp4", "int8", "none"),
        help=tr("load the base's layers in 4 or 8 bits; default: as the adapter was trained"),
    )
    parser.add_argument(
        "--seed", type=int, help=tr("of requests that send none; default: another one for each")
    )
    parser.add_argument("--temperature", type=float, default=0.0, help=tr("of requests without it"))
    parser.add_argument("--top_p", type=float, default=1.0, help=tr("of requests without it"))
    parser.add_argument(
        "--max_new_tokens", type=int, default=512, help=tr("of requests without max_tokens")
    )
    parser.add_argument(
        "--batch_size", type=int, default=8, help=tr("requests that are answered at once, at most")
    )
    parser.add_argument("--queue", type=int, default=256, help=tr("requests that may wait"))
    parser.add_argument(
        "--request_seconds", type=float, default=600, help=tr("how long a request may take")
    )
    parser.add_argument(
        "--grace_seconds", type=float, default=30, help=tr("for accepted requests after SIGTERM")
    )
    return parser


@in_language
def main(args: list[str]) -> int:
    """Run the command."""
    parser = _parser()
    return run_command(lambda: _serve(parser.parse_args(args)), flag_names(parser))


def _serve(options: argparse.Namespace) -> None:
    # torch and transformers take seconds to load: --help and a wrong flag do not wait for them.
    with loading_libraries():
        from lora.config import ConfigError

        try:
            import fastapi
            import uvicorn
        except ImportError:
            raise ConfigError(
                tr(
                    "lit.serve needs two more packages: pip install -c constraints.txt -e "
                    "'.[serve]'"
                )
            ) from None
        del fastapi, uvicorn
        from lit.answering.sampling import Sampling
        from lit.model.base import quiet
        from lit.model.placement import place
        from lit.model.tuned import read_base_config
        from lit.serving.engine.models import base_of_all, load_models, named_adapters
        from lit.serving.engine.request import Defaults
        from lit.serving.server import Limits, Server, check_host, listen, url

    quiet()
    seed = 42 if options.seed is None else options.seed
    sampling = Sampling(seed, options.temperature, options.top_p, options.max_new_tokens)
    limits = Limits(
        options.batch_size, options.queue, options.request_seconds, options.grace_seconds
    )
    check_host(options.host, options.api_key)
    adapters = named_adapters(options.adapter)
    base, revision = base_of_all(adapters, options.base)
    quantize = _quantization(list(adapters.values()), options.quantize)
    placement = place(read_base_config(base, revision), options.device, quantize)
    dtype = _dtype(options.dtype, placement.dtype)
    with listen(options.host, options.port) as listener:
        print(tr("loading the model …"), file=sys.stderr, flush=True)
        models = load_models(adapters, base, revision, dtype, quantize, placement.device)
        if limits.batch_size > 1 and (reason := models.answers_change_in_batches()):
            print(
                tr("batch  requests are answered one at a time: {reason}", reason=reason),
                flush=True,
            )
            limits = Limits(1, limits.queue, limits.request_seconds, limits.grace_seconds)
        address = url(options.host, listener)
        key = " -H 'Authorization: Bearer KEY'" if options.api_key else ""
        body = f'{{"model":"{models.names[-1]}","messages":[{{"role":"user","content":"Hello"}}]}}'
        print(tr("models {names}", names=", ".join(models.names)))
        print(tr("page   {address}/", address=address))
        print(
            f"curl {address}/v1/chat/completions{key} "
            f"-H 'Content-Type: application/json' -d '{body}'",
            flush=True,
        )
        defaults = Defaults(sampling, options.seed is not None)
        Server(models, options.host, options.api_key, defaults, limits).answer_on(listener)


def _quantization(adapters: list[str], asked: str | None) -> str | None:
    from lit.model.tuned import NOT_QUANTIZED, chosen_quantization
    from lora.config import ConfigError
    from lora.storage.metadata import read_quantization

    kinds = {read_quantization(adapter) or NOT_QUANTIZED for adapter in adapters}
    if asked is None and len(kinds) > 1:
        raise ConfigError(
            tr(
                "the adapters were trained on bases quantized as {kinds}, and one server has "
                "one base: choose with `quantize`",
                kinds=" and ".join(sorted(kinds)),
            )
        )
    return chosen_quantization(adapters[0] if adapters else None, asked)


def _dtype(asked: str, chosen: "torch.dtype") -> "torch.dtype":
    import torch

    return chosen if asked == "auto" else getattr(torch, asked)


if __name__ == "__main__":
    sys.exit(main())
