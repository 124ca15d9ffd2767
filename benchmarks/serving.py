"""Measure lit.serve under load: python -m benchmarks.serving [--base FOLDER]

Starts a server with the embedded model and a random adapter, over loopback only. It measures the
tokens per second of 8 requests of each kind one at a time and waiting together, checks every answer
under load against the same request's answer alone, reads the server's memory, and ends the server
with SIGTERM amid answers.
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import torch

from benchmarks.served import Server
from lit.model.tuned import load
from lora.config import LoRAConfig
from lora.injection import inject, lora_layers
from lora.storage.adapter import save_adapter

MODEL = Path("models/SmolLM2-135M-Instruct")
QUESTIONS = (
    "What is a resistor?",
    "How warm must the bed be for PLA?",
    "Name three colors.",
    "Why is the sky blue? Answer in one sentence.",
    "Почему деталь отклеилась от стола?",
    "Write a haiku about printers.",
    "What is 17 + 25?",
    "Как очистить сопло принтера?",
)


KINDS: dict[str, dict[str, float]] = {
    "greedy": {"temperature": 0.0},
    "temperature 0.8": {"temperature": 0.8},
    "temperature 0.8, top_p 0.9": {"temperature": 0.8, "top_p": 0.9},
}
"""How the requests choose tokens."""
EVERY = 100
"""Requests after which the server's memory is read again."""


def random_adapter(base: Path, folder: Path) -> Path:
    """Save an adapter that changes a little of what the model says."""
    model, tokenizer = load(None, str(base))
    torch.manual_seed(0)
    inject(model, LoRAConfig(r=8))
    for _, layer in lora_layers(model):
        torch.nn.init.normal_(layer.lora_B, std=0.01)
    save_adapter(model, folder, str(base.resolve()))
    tokenizer.save_pretrained(folder)
    return folder


def requests(tokens: int, kinds: Sequence[str] = tuple(KINDS)) -> list[dict]:
    """Return different requests to both models, for each kind of choosing tokens."""
    return [
        {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": tokens,
            "seed": 1,
            **KINDS[kind],
        }
        for question in QUESTIONS
        for model in ("base", "tuned")
        for kind in kinds
    ]


def speed(server: Server, bodies: list[dict], rounds: int) -> dict[str, object]:
    """Return tokens per second of requests one at a time and all waiting at once, in turns."""
    rates: dict[int, list[float]] = {1: [], len(bodies): []}
    for _ in range(rounds):
        for threads, measured in rates.items():
            start = time.perf_counter()
            with ThreadPoolExecutor(threads) as pool:
                tokens = sum(tokens for _, tokens in pool.map(server.ask, bodies))
            measured.append(tokens / (time.perf_counter() - start))
    alone, together = rates.values()
    return {
        "one_at_a_time": [round(rate, 1) for rate in alone],
        "together": [round(rate, 1) for rate in together],
        "ratio": [round(b / a, 2) for a, b in zip(alone, together, strict=True)],
    }


def load_test(server: Server, options: argparse.Namespace) -> dict:
    """Let clients ask at once; compare each answer with the one given alone."""
    bodies, clients = requests(options.tokens), options.clients
    alone = [server.ask(body)[0] for body in bodies]
    memory = {0: server.memory()}
    waits: list[float] = []
    wrong: list[int] = []
    failures: list[str] = []
    start = time.perf_counter()

    def client(number: int) -> None:
        choose = random.Random(number)
        while (spent := time.perf_counter() - start) < options.seconds or (
            len(waits) < options.requests and spent < options.most_seconds
        ):
            which = choose.randrange(len(bodies))
            begun = time.perf_counter()
            try:
                text = server.ask(bodies[which])[0]
            except httpx2.HTTPError as error:
                failures.append(str(error))
                return
            waits.append(time.perf_counter() - begun)
            if text != alone[which]:
                wrong.append(which)

    threads = [threading.Thread(target=client, args=(n,)) for n in range(clients)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.5)
        if len(waits) // EVERY * EVERY > max(memory):
            memory[len(waits) // EVERY * EVERY] = server.memory()
    memory[len(waits)] = server.memory()
    return {
        "clients": clients,
        "seconds": round(time.perf_counter() - start),
        "requests": len(waits),
        "failed": len(failures),
        "other_answers": len(wrong),
        "wait_median_s": round(statistics.median(waits), 1),
        "wait_max_s": round(max(waits), 1),
        "memory_mb_after_requests": memory,
        "batches": server.counts("batches_total"),
        "repeated": sum(server.counts("repeated_answers_total").values()),
    }


def killed_client(server: Server) -> float:
    """Kill a client amid its answer; return the seconds until the server is idle."""
    body = {**requests(1000)[1], "stream": True, "temperature": 1.0}
    url = f"{server.address}/v1/chat/completions"
    asked = f"httpx2.stream('POST', {url!r}, json={body!r}, timeout=60)"
    code = f"import httpx2\nwith {asked} as answer:"
    code += "\n for line in answer.iter_lines(): print(line, flush=True)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for _ in range(6):
        assert child.stdout.readline()
    assert server.counts("running_requests")[""] == 1
    child.kill()
    start = time.perf_counter()
    while server.counts("running_requests")[""]:
        time.sleep(0.01)
    child.wait()
    return time.perf_counter() - start


def ended_amid_answers(server: Server) -> tuple[int, int, float]:
    """Send SIGTERM amid 8 answers; return how many were given, the exit code and the seconds."""
    bodies = requests(8)[:8]
    with ThreadPoolExecutor(len(bodies)) as pool:
        asked = [pool.submit(server.ask, body) for body in bodies]
        running = "running_requests", "waiting_requests"
        while sum(server.counts(name)[""] for name in running) < len(bodies):
            time.sleep(0.01)
        start = time.perf_counter()
        os.kill(server.process.pid, signal.SIGTERM)
        given = sum(future.exception() is None for future in asked)
    return given, server.process.wait(60), time.perf_counter() - start


def main() -> int:
    """Print the measurements as JSON; return 1 if an answer was lost or another one."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--requests", type=int, default=0, help="at least so many")
    parser.add_argument("--most_seconds", type=float, default=600, help="for --requests")
    parser.add_argument("--tokens", type=int, default=4, help="of an answer under load")
    parser.add_argument("--rounds", type=int, default=3, help="of tokens per second")
    parser.add_argument("--base", type=Path, default=MODEL)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(random_adapter(options.base, Path(folder) / "adapter"))
        try:
            rates = {}
            for kind in KINDS:
                same = [body for body in requests(24, [kind]) if body["model"] == "tuned"]
                rates[kind] = speed(server, same, options.rounds)
            result = {
                "tokens_per_s_of_8_requests": rates,
                **load_test(server, options),
                "seconds_after_a_killed_client": round(killed_client(server), 2),
            }
            given, code, seconds = ended_amid_answers(server)
            result |= {"answers_after_sigterm": given, "exit_code": code}
            result["seconds_to_exit"] = round(seconds, 1)
        finally:
            server.process.kill()
            server.process.wait()
    print(json.dumps(result, indent=1))
    return int(bool(result["failed"] or result["other_answers"] or given < 8))


if __name__ == "__main__":
    sys.exit(main())
