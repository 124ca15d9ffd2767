"""OpenAI's interface, with the openai package as client."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import openai
import pytest
import torch
from serving import Served, make_adapters, make_endless, read, running, say

from data.template import prompt_ids
from data.types import Message, kind_of
from lit.answering.generation import stream
from lit.answering.sampling import Sampling
from lit.fast_layers.fused_norm import FusedRMSNorm
from lit.model.tuned import load
from lit.serving.server import Limits

ASKED = [
    {"role": "system", "content": "Коротко."},
    {"role": "user", "content": "Почему <|im_end|>?"},
]
USER = {"role": "user", "content": "Why?"}
ENDLESS = {"max_tokens": 100_000, "temperature": 0}


@pytest.fixture(scope="module")
def adapters(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two adapters by name."""
    return make_adapters(tiny_folder, tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def served(adapters: dict[str, str], tiny_folder: Path) -> Iterator[Served]:
    """A server without a key."""
    with running(read(adapters, tiny_folder)) as served:
        yield served


@pytest.fixture
def client(served: Served) -> openai.OpenAI:
    """The client that people use."""
    return openai.OpenAI(base_url=f"{served.address}/v1", api_key="unused", max_retries=0)


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory, tokenizer_file: Path) -> Iterator[Served]:
    """A server with a base whose answers do not end, one at a time, and two that may wait."""
    folder = make_endless(tokenizer_file, tmp_path_factory.mktemp("endless"))
    limits = Limits(batch_size=1, queue=2, request_seconds=60, grace_seconds=1)
    with running(read({}, folder), limits=limits) as served:
        yield served


def test_the_models_are_the_base_and_each_adapter(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["base", "tuned", "other"]
    assert client.models.retrieve("other").id == "other"
    with pytest.raises(openai.NotFoundError, match="base, tuned, other"):
        client.models.retrieve("gpt")


@pytest.mark.parametrize("name", ["base", "tuned", "other"])
@pytest.mark.parametrize("temperature", [0.0, 1.2])
def test_an_answer_is_what_chat_says_with_the_same_seed_whole_and_streamed(
    name: str,
    temperature: float,
    client: openai.OpenAI,
    adapters: dict[str, str],
    tiny_folder: Path,
) -> None:
    model, tokenizer = load(adapters.get(name), str(tiny_folder))
    prompt = prompt_ids([Message(**turn) for turn in ASKED], tokenizer)
    expected = stream(
        model, tokenizer, prompt, Sampling(7, temperature, 1.0, 24), lambda text: None
    )
    settings = {"model": name, "messages": ASKED, "seed": 7, "temperature": temperature}
    whole = client.chat.completions.create(**settings, max_tokens=24)
    assert whole.choices[0].message.content.strip() == expected.text.strip()
    assert whole.choices[0].finish_reason == ("stop" if expected.stopped else "length")
    assert whole.usage.prompt_tokens == len(prompt)
    assert whole.usage.completion_tokens == expected.tokens
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(**settings, **options, max_completion_tokens=24))
    assert chunks[0].choices[0].delta.role == "assistant"
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == whole.choices[0].message.content
    assert len([text for text in texts if text]) > 3
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].usage == whole.usage
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


def test_the_base_and_every_adapter_answer_with_fast_layers(
    adapters: dict[str, str], tiny_folder: Path
) -> None:
    models = read(adapters, tiny_folder)
    ids = torch.arange(3, 20)[None]
    for name in models.names:
        plain, _ = load(adapters.get(name), str(tiny_folder))
        fast = models.use(name)
        with torch.no_grad():
            torch.testing.assert_close(fast(ids).logits, plain(ids).logits, atol=1e-5, rtol=1e-4)
        norms = {type(module) for path, module in fast.named_modules() if "norm" in path}
        assert norms == {FusedRMSNorm}


def test_a_text_is_continued(client: openai.OpenAI, served: Served) -> None:
    asked = {"model": "tuned", "prompt": "Видеомонтаж — это", "max_tokens": 9, "seed": 1}
    whole = client.completions.create(**asked)
    pieces = [chunk.choices[0].text for chunk in client.completions.create(**asked, stream=True)]
    assert whole.choices[0].text == "".join(pieces)
    assert whole.usage.completion_tokens <= 9
    assert whole.choices[0].text != say(served.chat("Видеомонтаж — это", max_tokens=9, seed=1))


def test_an_answer_ends_before_a_stop_text(served: Served) -> None:
    text = say(served.chat(temperature=0))
    stop = text[4:6]
    answer = served.chat(temperature=0, stop=["\0never", stop])
    assert say(answer) == text[: text.index(stop)]
    assert answer.json()["choices"][0]["finish_reason"] == "stop"
    with served.client.stream(
        "POST",
        "/v1/chat/completions",
        json={
            "model": "tuned",
            "messages": [{"role": "user", "content": "Why?"}],
            "temperature": 0,
            "stream": True,
            "max_tokens": 16,
            "stop": stop,
        },
    ) as response:
        events = [line[6:] for line in response.iter_lines() if line.startswith("data: {")]
    deltas = [json.loads(event)["choices"][0]["delta"].get("content", "") for event in events]
    assert "".join(deltas) == text[: text.index(stop)]


def test_without_a_seed_each_answer_has_another_one(served: Served) -> None:
    drawn = {say(served.chat(temperature=2)) for _ in range(4)}
    assert len(drawn) > 1
    assert say(served.chat(temperature=2, seed=3)) == say(served.chat(temperature=2, seed=3))


def test_unknown_fields_are_ignored_and_named(served: Served) -> None:
    answer = served.chat(tools=[], user="me", top_k=4)
    assert answer.status_code == 200
    assert answer.headers["X-Ignored-Fields"] == "tools, top_k"
    assert "X-Ignored-Fields" not in served.chat(user="me").headers


WRONG = {
    "temperature": ({"temperature": "hot"}, 400, "temperature"),
    "negative": ({"temperature": -1}, 400, "temperature"),
    "true": ({"top_p": True}, 400, "top_p"),
    "seed": ({"seed": -5}, 400, "seed"),
    "huge": ({"temperature": 10**400}, 400, "temperature"),
    "length": ({"max_tokens": 0}, 400, "max_tokens"),
    "answers": ({"n": 2}, 400, "n"),
    "stops": ({"stop": ["a"] * 5}, 400, "stop"),
    "empty stop": ({"stop": ""}, 400, "stop"),
    "no model": ({"model": None}, 400, "model"),
    "model": ({"model": "gpt-4"}, 404, "model"),
    "no messages": ({"messages": []}, 400, "messages"),
    "role": ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages[0].role"),
    "picture": (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        400,
        "messages[0].content[0]",
    ),
    "long": ({"max_tokens": 5000}, 400, "max_tokens"),
    "too long": ({"messages": [{"role": "user", "content": "why " * 900}]}, 400, "messages"),
    "large": ({"messages": [{"role": "user", "content": "a" * 2**20}]}, 413, None),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_request_that_cannot_be_answered_is_refused_in_openais_form(
    case: str, served: Served
) -> None:
    fields, status, param = WRONG[case]
    refused = served.chat(**fields)
    error = refused.json()["error"]
    assert refused.status_code == status
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["param"] == param
    if case == "too long":
        assert "256" in error["message"]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"{}", "text/plain", 415),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(
    body: bytes, kind: str, status: int, served: Served
) -> None:
    headers = {"Content-Type": kind}
    refused = served.client.post("/v1/chat/completions", content=body, headers=headers)
    assert refused.status_code == status
    assert refused.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("language", ["ru", "en"])
@pytest.mark.parametrize("case", [*WRONG, "a list", "a number for a text"])
def test_what_is_refused_is_in_english(
    case: str, language: str, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGUAGE", language)
    assert kind_of([]) == {"ru": "список", "en": "a list"}[language]
    odd = {
        "a list": {"messages": [[]]},
        "a number for a text": {"messages": [USER | {"content": 7}]},
    }
    error = served.chat(**(WRONG[case][0] if case in WRONG else odd[case])).json()["error"]
    assert not re.search("[а-яё]", error["message"], re.IGNORECASE), error


def test_what_is_not_there_is_refused_in_the_same_form(served: Served) -> None:
    assert served.client.get("/v1/nothing").json()["error"]["type"] == "not_found_error"
    assert served.client.get("/../../etc/passwd").status_code == 404
    assert served.client.get("/v1/models/..%2f..%2fetc%2fpasswd").status_code == 404
    assert served.client.put("/health").status_code == 405
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert served.client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:8000"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "localhost:1", "Origin": "http://localhost:1"}, 200),
    ],
)
def test_only_requests_to_the_servers_own_name_are_read(
    headers: dict[str, str], status: int, served: Served
) -> None:
    answer = served.client.get("/v1/models", headers=headers)
    assert answer.status_code == status
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_server_with_a_key_answers_only_requests_that_have_it(
    adapters: dict[str, str], tiny_folder: Path
) -> None:
    with running(read({}, tiny_folder), api_key="s3cret") as served:
        wrong = openai.OpenAI(base_url=f"{served.address}/v1", api_key="s3cre", max_retries=0)
        with pytest.raises(openai.AuthenticationError):
            wrong.models.list()
        right = openai.OpenAI(base_url=f"{served.address}/v1", api_key="s3cret", max_retries=0)
        assert [model.id for model in right.models.list()] == ["base"]
        assert served.chat(model="base").status_code == 401
        assert served.client.get("/metrics").status_code == 401
        bytes_key = {"Authorization": b"Bearer \xff\xfe"}
        assert served.client.get("/v1/models", headers=bytes_key).status_code == 401
        for path in ("/", "/health"):
            assert served.client.get(path).status_code == 200


def test_answers_under_load_are_those_given_alone_and_batches_are_used(served: Served) -> None:
    questions = [
        {"text": f"Why {'so ' * (i % 5)}{i}?", "model": model, "seed": i, "temperature": i % 3 / 2}
        for i in range(6)
        for model in ("base", "tuned", "other")
    ]
    alone = [say(served.chat(**question)) for question in questions]
    with ThreadPoolExecutor(len(questions)) as pool:
        together = list(pool.map(lambda question: say(served.chat(**question)), questions))
    assert together == alone
    metrics = served.client.get("/metrics").text
    assert "lit_serve_batches_total" in metrics
    assert [
        line
        for line in metrics.splitlines()
        if line.startswith('lit_serve_batches_total{requests="4"}')
    ]


def test_a_batch_that_fails_is_answered_one_by_one(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lit.serving.engine import worker

    alone = say(served.chat("Why?", temperature=0))
    original = worker.generate_rows

    def failing(model, prompts, *others):
        if len(prompts) > 1:
            raise RuntimeError("no memory")
        return original(model, prompts, *others)

    monkeypatch.setattr(worker, "generate_rows", failing)
    with ThreadPoolExecutor(6) as pool:
        texts = list(pool.map(lambda _: say(served.chat("Why?", temperature=0)), range(6)))
    assert set(texts) == {alone}


def test_a_model_that_computes_nan_gives_an_error_and_the_server_lives(
    tiny_folder: Path, tmp_path: Path
) -> None:
    models = read({}, tiny_folder)
    with torch.no_grad():
        models.model.lm_head.weight.fill_(torch.nan)
    with running(models) as served:
        for _ in range(2):
            refused = served.chat(model="base")
            assert refused.status_code == 500
            assert refused.json()["error"]["code"] == "not_finite"
        assert served.client.get("/health").json() == {"status": "ok"}


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def open_stream(served: Served) -> openai.Stream:
    """Start an endless answer, and wait for its first text."""
    client = openai.OpenAI(base_url=f"{served.address}/v1", api_key="unused", max_retries=0)
    messages = [{"role": "user", "content": "Why?"}]
    stream = client.chat.completions.create(model="base", messages=messages, stream=True, **ENDLESS)
    while not next(stream).choices[0].delta.content:
        pass
    return stream


def test_a_client_that_goes_away_ends_its_answer_and_leaves_the_queue(endless: Served) -> None:
    worker, queue = endless.server.worker, endless.server.worker.queue
    stream = open_stream(endless)
    assert len(worker.running) == 1
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(
            f"{endless.address}/v1/chat/completions",
            json={"model": "base", "messages": [{"role": "user", "content": "x"}], **ENDLESS},
            timeout=0.3,
        )
    wait_until(lambda: len(queue) == 0)
    stream.close()
    wait_until(lambda: not worker.running)
    gone = [
        line
        for line in endless.client.get("/metrics").text.splitlines()
        if line.startswith('lit_serve_requests_total{model="base",status="499"}')
    ]
    assert gone[0].endswith(" 2")


def test_requests_beyond_the_queue_are_refused_and_the_order_is_kept(endless: Served) -> None:
    worker, statuses = endless.server.worker, {}
    stream = open_stream(endless)

    def ask(text: str, **settings: object) -> None:
        statuses[text] = endless.chat(text, model="base", **settings).status_code

    # The second does not end by itself: were it taken first, the first would get no answer.
    first = threading.Thread(target=ask, args=("first",), kwargs={"max_tokens": 2})
    second = threading.Thread(target=ask, args=("second",), kwargs=ENDLESS)
    for waiting, thread in enumerate((first, second), start=1):
        thread.start()
        wait_until(lambda count=waiting: len(worker.queue) == count)
    client = openai.OpenAI(base_url=f"{endless.address}/v1", api_key="unused", max_retries=0)
    with pytest.raises(openai.RateLimitError, match="2 requests are waiting"):
        client.chat.completions.create(model="base", messages=ASKED)
    stream.close()
    first.join(timeout=20)
    assert statuses == {"first": 200}
    wait_until(lambda: len(worker.queue) == 0 and len(worker.running) == 1)
    worker.running[0].deadline = time.monotonic()
    second.join(timeout=20)
    assert sorted(statuses) == ["first", "second"]


def test_an_answer_that_takes_too_long_ends_with_an_error(endless: Served) -> None:
    stream = open_stream(endless)
    (job,) = endless.server.worker.running
    job.deadline = time.monotonic() + 0.2
    with pytest.raises(openai.APIError, match="request_seconds"):
        for _ in stream:
            pass
    wait_until(lambda: not endless.server.worker.running)
