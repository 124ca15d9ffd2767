"""Measure lit.serve under load: python -m benchmarks.serving [--base FOLDER]

Starts a server with the embedded model and a random adapter, over loopback only. It measures the
tokens per second of 8 requests one at a time and waiting together, checks every answer under load
against the same request's answer alone, reads the server's memory, and ends the server with SIGTERM
amid answers.
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import torch

from benchmarks.served import MAX_SECONDS, Server
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
)


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


def requests(tokens: int) -> list[dict]:
    """Return different requests to both models, greedy and sampled."""
    return [
        {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": tokens,
            "seed": seed,
            "temperature": temperature,
            **({"top_p": 0.9} if seed == 2 else {}),
        }
        for question in QUESTIONS
        for model in ("base", "tuned")
        for seed, temperature in ((1, 0.0), (2, 0.8))
    ]


def speed(server: Server, bodies: list[dict]) -> tuple[float, float]:
    """Return the tokens per second of requests one at a time, and all waiting at once."""
    rates = []
    for threads in (1, len(bodies)):
        start = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            tokens = sum(tokens for _, tokens in pool.map(server.ask, bodies))
        rates.append(tokens / (time.perf_counter() - start))
    return rates[0], rates[1]


def load_test(server: Server, options: argparse.Namespace) -> dict:
    """Let clients ask at once; compare each answer with the one given alone."""
    bodies, clients = requests(options.tokens), options.clients
    alone = [server.ask(body)[0] for body in bodies]
    memories = [server.memory()]
    waits: list[float] = []
    wrong: list[int] = []
    failures: list[str] = []
    start = time.perf_counter()

    def client(number: int) -> None:
        choose = random.Random(number)
        while (spent := time.perf_counter() - start) < options.seconds or (
            len(waits) < options.requests and spent < MAX_SECONDS
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
        time.sleep(5)
        memories.append(server.memory())
    return {
        "clients": clients,
        "seconds": round(time.perf_counter() - start),
        "requests": len(waits),
        "failed": len(failures),
        "other_answers": len(wrong),
        "wait_median_s": round(statistics.median(waits), 1),
        "wait_max_s": round(max(waits), 1),
        "memory_mb": [memories[0], *memories[1::3]],
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
    parser.add_argument("--tokens", type=int, default=4, help="of an answer under load")
    parser.add_argument("--base", type=Path, default=MODEL)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(random_adapter(options.base, Path(folder) / "adapter"))
        try:
            same = [body for body in requests(24) if body["model"] == "tuned"][:8]
            alone, together = speed(server, same)
            result = {
                "tokens_per_s_one_at_a_time": round(alone, 1),
                "tokens_per_s_together": round(together, 1),
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
