"""A server in this process, with a base and two adapters of tiny random models."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx2
import torch
from conftest import make_model
from transformers import PreTrainedTokenizerFast

from lit.answering.sampling import Sampling
from lit.model.tuned import load
from lit.serving.engine.models import ServedModels, load_models
from lit.serving.engine.request import Defaults
from lit.serving.server import Limits, Server, listen, url
from lora.config import LoRAConfig
from lora.injection import inject, lora_layers
from lora.storage.adapter import save_adapter


class Served(NamedTuple):
    """A running server."""

    address: str
    server: Server
    client: httpx2.Client

    def chat(self, text: str = "Why?", **fields: object) -> httpx2.Response:
        """Ask the tuned model."""
        body = {"model": "tuned", "messages": [{"role": "user", "content": text}], "max_tokens": 16}
        return self.client.post("/v1/chat/completions", json=body | fields)


def say(response: httpx2.Response) -> str:
    """Return the text of an answer."""
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["message"]["content"]


def make_adapters(base: Path, folder: Path) -> dict[str, str]:
    """Two adapters that change what a model says, by name."""
    folders = {}
    for seed, name in enumerate(("tuned", "other")):
        model, tokenizer = load(None, str(base))
        torch.manual_seed(seed + 5)
        inject(model, LoRAConfig(r=4))
        for _, layer in lora_layers(model):
            torch.nn.init.normal_(layer.lora_B, std=0.5)
        folders[name] = str(save_adapter(model, folder / name, str(base)))
        tokenizer.save_pretrained(folders[name])
    return folders


def make_endless(tokenizer_file: Path, folder: Path) -> Path:
    """A model folder whose answers do not end: letters a and b, with any adapter."""
    model = make_model(max_position_embeddings=200_000, eos_token_id=None)
    model.generation_config.eos_token_id = None
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_file)
    a, b = tokenizer.convert_tokens_to_ids(["a", "b"])
    with torch.no_grad():
        # One of these two letters always has the largest logit.
        model.lm_head.weight.fill_(0)
        model.lm_head.weight[a], model.lm_head.weight[b] = 1, -1
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def read(adapters: dict[str, str], base: Path) -> ServedModels:
    """Load the models as the command does."""
    return load_models(adapters, str(base), None, torch.float32, None, torch.device("cpu"))


@contextmanager
def running(
    models: ServedModels,
    api_key: str | None = None,
    limits: Limits | None = None,
    max_new_tokens: int = 256,
) -> Iterator[Served]:
    """Run a server in a thread."""
    listener = listen("127.0.0.1", 0)
    address = url("127.0.0.1", listener)
    limits = limits or Limits(batch_size=4, queue=32, grace_seconds=1)
    defaults = Defaults(Sampling(max_new_tokens=max_new_tokens))
    server = Server(models, "127.0.0.1", api_key, defaults, limits)
    thread = threading.Thread(target=server.answer_on, args=(listener,))
    thread.start()
    try:
        with httpx2.Client(base_url=address, timeout=60) as client:
            yield Served(address, server, client)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
