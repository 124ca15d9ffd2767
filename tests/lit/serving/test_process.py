"""python -m lit.serve as a process: what it prints, curl, signals, and wrong starts."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from serving import make_adapters, make_endless

from lit.serve import _parser, main
from lit.serving.engine.models import named_adapters
from lora.config import ConfigError


@pytest.fixture(scope="module")
def process(
    tokenizer_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[subprocess.Popen, str, str]]:
    """A server of two adapters; its address, and the curl line that it prints."""
    base = make_endless(tokenizer_file, tmp_path_factory.mktemp("endless"))
    adapters = make_adapters(base, tmp_path_factory.mktemp("adapters"))
    command = [sys.executable, "-m", "lit.serve", "--port", "0", "--base", str(base)]
    command += ["--grace_seconds", "5", "--seed", "1"]
    for name, folder in adapters.items():
        command += ["--adapter", f"{name}={folder}"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(3)]
    assert lines[0] == "models base, tuned, other\n", (lines, child.poll())
    yield child, re.fullmatch(r"page   (http://127.0.0.1:\d+)/\n", lines[1])[1], lines[2]
    child.kill()
    child.wait()


def waiting(address: str) -> tuple[int, int]:
    """Return how many requests are being answered, and how many wait."""
    text = httpx2.get(f"{address}/metrics").text
    counts = [re.search(rf"{name}_requests (\d+)$", text, re.M) for name in ("running", "waiting")]
    return int(counts[0][1]), int(counts[1][1])


def test_the_curl_line_that_is_printed_gets_an_answer(
    process: tuple[subprocess.Popen, str, str],
) -> None:
    _, address, curl = process
    done = subprocess.run(curl, shell=True, capture_output=True, text=True, timeout=60)
    answer = json.loads(done.stdout)
    assert answer["model"] == "other"
    assert answer["choices"][0]["finish_reason"] in ("stop", "length")
    assert "/v1/chat/completions" in curl
    assert httpx2.get(f"{address}/v1/models").status_code == 200


def test_on_sigterm_accepted_requests_end_within_the_grace_time_and_new_ones_are_refused(
    process: tuple[subprocess.Popen, str, str],
) -> None:
    child, address, _ = process
    answers: dict[str, httpx2.Response] = {}

    def ask(name: str, tokens: int) -> None:
        messages = [{"role": "user", "content": "Why?"}]
        body = {"model": name, "messages": messages, "max_tokens": tokens, "temperature": 0}
        answers[name] = httpx2.post(f"{address}/v1/chat/completions", json=body, timeout=60)

    threads = []
    for count, asked in enumerate((("tuned", 300), ("other", 20), ("base", 150_000))):
        threads.append(threading.Thread(target=ask, args=asked))
        threads[-1].start()
        while waiting(address) != (1, count):
            time.sleep(0.005)
    start = time.monotonic()
    child.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert child.wait(10) == 128 + signal.SIGTERM
    assert time.monotonic() - start < 12
    assert {name: answer.status_code for name, answer in answers.items()} == {
        "tuned": 200,
        "other": 200,
        "base": 503,
    }
    assert answers["tuned"].json()["usage"]["completion_tokens"] == 300
    assert answers["base"].json()["error"]["code"] == "stopping"
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{address}/health")
    assert child.stderr is not None
    shown = [line.rstrip("… ") for line in child.stderr.read().splitlines()]
    assert shown == ["loading the libraries", "loading the model"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give --adapter D, or --base NAME"),
        (["--adapter", "nowhere"], "adapter_config.json"),
        (["--base", "./nowhere"], "no folder ./nowhere"),
        (["--host", "0.0.0.0"], "add --api_key"),
        (["--host", "example.invalid", "--api_key", "k"], "not an address"),
        (["--api_key", ""], "--api_key must have"),
        (["--port", "70000"], "--port is 70000"),
        (["--batch_size", "0"], "--batch_size is 0"),
        (["--temperature", "-1"], "--temperature"),
        (["--adapter", "a", "--adapter", "b"], "--adapter NAME=a"),
        (["--adapter", "base=a"], "choose another one"),
        (["--adapter", "a b=c"], "letters, digits"),
    ],
)
def test_a_wrong_start_ends_with_2_and_says_what_to_type(
    arguments: list[str], said: str, tiny_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    models = {"--adapter", "--base"} & set(arguments)
    base = [] if models or not arguments else ["--base", str(tiny_folder)]
    assert main([*base, *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_port_in_use_is_named_before_the_model_is_loaded(
    tiny_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--base", str(tiny_folder), "--port", str(port)]) == 2
    assert "choose another --port" in capsys.readouterr().err


def test_one_adapter_is_called_tuned_and_a_folder_may_have_an_equals_sign(tmp_path: Path) -> None:
    folder = tmp_path / "r=8"
    folder.mkdir()
    assert named_adapters([str(folder)]) == {"tuned": str(folder)}
    assert named_adapters([f"mine={folder}", "b=x"]) == {"mine": str(folder), "b": "x"}
    with pytest.raises(ConfigError, match="twice"):
        named_adapters(["a=x", "a=y"])


def test_the_key_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_LORA_API_KEY", "secret")
    assert _parser().parse_args([]).api_key == "secret"
    assert _parser().parse_args(["--api_key", "other"]).api_key == "other"
