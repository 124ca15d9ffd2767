"""What computes the products on a CPU: timed in turns, kept for the machine, chosen by a margin."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import make_model
from torch import Tensor, nn

from lit.device import load
from lit.device.load import watching_others
from lit.fast_layers import kept_times, library, product_times
from lit.fast_layers.kept_times import product_times as times_of
from lit.fast_layers.library import bf16_gain, choose_library, fast_kinds, library_of
from lit.fast_layers.product_times import (
    BF16,
    LIMIT,
    ONEDNN,
    REPEATS,
    TOKENS,
    TORCH,
    WAYS,
    time_products,
    ways_here,
)
from lit.fast_layers.table import use_fast_layers

SHAPES = ((8, 16, 3), (4096, 8, 2))
LARGE = ((1024, 1024, 10),)
RATES = {TORCH: 3e-9, ONEDNN: 2e-9, BF16: 1e-9}
"""Seconds for each weight of a layer."""


class Clock:
    """A clock that products alone move: by a rate for each weight, and more in a busy moment."""

    def __init__(self, busy: Callable[[int], float]) -> None:
        self.now, self.calls, self.busy = 0.0, 0, busy

    def perf_counter(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return self.now

    def way(self, name: str) -> tuple[Callable[[Tensor, Tensor], Tensor], ...]:
        def run(x: Tensor, weight: Tensor) -> Tensor:
            assert x.shape[0] == TOKENS
            assert x.shape[1] in weight.shape
            self.calls += 1
            self.now += RATES[name] * weight.numel() * self.busy(self.calls)
            return x

        return run, run, torch.float32  # type: ignore[return-value]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], float]], Clock]:
    def use(busy: Callable[[int], float]) -> Clock:
        made = Clock(busy)
        monkeypatch.setattr(product_times, "time", made)
        monkeypatch.setattr(product_times, "ways_here", lambda: list(RATES))
        monkeypatch.setattr(product_times, "WAYS", {name: made.way(name) for name in RATES})
        return made

    return use


BUSY = {
    "idle": lambda call: 1.0,
    "slow at first": lambda call: 50.0 if call <= 12 * REPEATS else 1.0,
    "slow after another library": lambda call: 9.0 if call % REPEATS == 1 else 1.0,
    "now and then": lambda call: 30.0 if call % 5 == 0 else 1.0,
}


@pytest.mark.parametrize("busy", BUSY)
def test_times_are_those_of_an_idle_machine_for_all_layers(busy: str, clock: Callable) -> None:
    clock(BUSY[busy])
    weights = sum(outputs * inputs * layers for outputs, inputs, layers in SHAPES)
    expected = {name: 2 * rate * weights for name, rate in RATES.items()}
    assert time_products(SHAPES) == pytest.approx(expected)


def test_timing_ends_at_its_limit_when_every_product_was_timed_once(clock: Callable) -> None:
    round_seconds = REPEATS * 2 * sum(RATES.values()) * (8 * 16 + 1024 * 8)
    slowest = REPEATS * RATES[TORCH] * 1024 * 8
    for rounds in (0.5, 1.5):
        made = clock(lambda call: 1.0)
        limit = rounds * round_seconds
        assert time_products(SHAPES, limit).keys() == RATES.keys()
        assert made.now <= max(limit, round_seconds) + slowest


@pytest.mark.parametrize("way", WAYS)
def test_every_way_computes_the_products_of_a_layer(way: str) -> None:
    if way not in ways_here():
        pytest.skip("this CPU has no such way")
    torch.manual_seed(0)
    forward, backward, dtype = WAYS[way]
    layer = nn.Linear(24, 40, bias=False)
    x = torch.randn(6, 24, requires_grad=True)
    y = layer(x)
    g = torch.randn_like(y)
    (expected,) = torch.autograd.grad(y, x, g)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    weight = layer.weight.detach().to(dtype)
    pairs = (
        (forward(x.detach().to(dtype), weight), y),
        (backward(g.to(dtype), weight), expected),
    )
    for found, wanted in pairs:
        assert (found.float() - wanted).norm() <= tolerance * wanted.norm()


def test_timing_ends_in_time_and_draws_no_numbers() -> None:
    state = torch.get_rng_state()
    product_times.time_products(((256, 128, 1),), limit=0.05)
    assert torch.equal(torch.get_rng_state(), state)
    assert LIMIT <= 0.3


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """What the next measurements find; the file of the machine is in tmp_path."""
    found: list[dict[str, float]] = []
    monkeypatch.setattr(kept_times, "FOLDER", tmp_path / "times")
    monkeypatch.setattr(kept_times, "time_products", lambda shapes: found.pop(0))
    leave_cores(monkeypatch, 1000)
    times_of.cache_clear()
    return found


def leave_cores(monkeypatch: pytest.MonkeyPatch, *counts: float) -> None:
    """Let other programs leave these many cores in the next measurements, then the last of them."""
    left = [*counts]
    monkeypatch.setattr(
        kept_times, "free_cores", lambda busy: left.pop(0) if len(left) > 1 else left[0]
    )


def new_process() -> None:
    times_of.cache_clear()


def test_every_process_of_a_machine_gets_what_was_measured_first(measured: list) -> None:
    measured += [{TORCH: 1.3, ONEDNN: 1.0}]
    for _ in range(3):
        assert times_of(LARGE) == {TORCH: 1.3, ONEDNN: 1.0}
        new_process()
    assert not measured


def test_of_processes_that_measure_at_once_all_take_what_the_first_has_written(
    measured: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(shapes: object) -> dict[str, float]:
        monkeypatch.setattr(kept_times, "time_products", lambda shapes: {TORCH: 1.0})
        other = times_of.__wrapped__(LARGE)
        assert other == {TORCH: 1.0}
        return {TORCH: 2.0}

    monkeypatch.setattr(kept_times, "time_products", slow)
    assert times_of(LARGE) == {TORCH: 1.0}


BUSY_TIMES, IDLE_TIMES = {TORCH: 9.0, ONEDNN: 3.0}, {TORCH: 1.0, ONEDNN: 1.1}


def test_times_of_a_busy_machine_are_said_to_be_and_soon_measured_again(
    measured: list, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    threads = torch.get_num_threads()
    leave_cores(monkeypatch, threads - 1)
    measured += [{TORCH: 7.0}, BUSY_TIMES]
    now = [1e9]
    monkeypatch.setattr(kept_times.time, "time", lambda: now[0])
    for later in (0, kept_times.BUSY_SECONDS - 1):  # other processes of the run
        now[0] = 1e9 + later
        assert times_of(LARGE) == BUSY_TIMES
        assert "other programs kept this CPU busy" in capsys.readouterr().err
        new_process()
    leave_cores(monkeypatch, threads)
    measured += [IDLE_TIMES]
    now[0] = 1e9 + 2 * kept_times.BUSY_SECONDS
    for _ in range(2):
        assert times_of(LARGE) == IDLE_TIMES
        assert capsys.readouterr() == ("", "")
        new_process()
    assert not measured


def test_a_program_of_a_moment_does_not_make_a_machine_busy(
    measured: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_cores(monkeypatch, 0, 1000)
    measured += [BUSY_TIMES, IDLE_TIMES]
    assert times_of(LARGE) == IDLE_TIMES


def test_cores_that_other_programs_use_are_counted() -> None:
    loop, count = "while True: pass", os.cpu_count() or 1
    with watching_others() as busy_cores:
        others = [subprocess.Popen([sys.executable, "-c", loop]) for _ in range(count)]
        try:
            time.sleep(1)
            used = busy_cores()
        finally:
            for other in others:
                other.kill()
                other.wait()
    assert used > 0.5


def test_cores_that_this_program_uses_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"perf_counter": [0.0, 2.0], "process_time": [10.0, 12.0]}
    for name, values in seconds.items():
        monkeypatch.setattr(load.time, name, lambda values=values: values.pop(0))
    all_cores = [100.0, 103.0]
    monkeypatch.setattr(load, "_busy_seconds", lambda: all_cores.pop(0))
    with watching_others() as busy_cores:
        assert busy_cores() == 0.5


@pytest.mark.parametrize("changed", ["threads", "cpu", "torch", "ways"])
def test_another_machine_is_measured_by_itself(
    changed: str, measured: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured += [{TORCH: 1.0}, {TORCH: 2.0}]
    assert times_of(LARGE) == {TORCH: 1.0}
    if changed == "threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    elif changed == "torch":
        monkeypatch.setattr(torch, "__version__", "9.9")
    else:
        name = {"cpu": "cpu_name", "ways": "ways_here"}[changed]
        monkeypatch.setattr(kept_times, name, lambda: "another")
    new_process()
    assert times_of(LARGE) == {TORCH: 2.0}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"seconds": 1}', '{"seconds": {"torch": "x"}}'])
def test_a_damaged_file_is_no_reason_to_fail(text: str, measured: list) -> None:
    measured += [{TORCH: 1.0}, {TORCH: 1.0}]
    times_of(LARGE)
    (path,) = kept_times.FOLDER.iterdir()
    assert json.loads(path.read_text())["seconds"] == {TORCH: 1.0}
    path.write_text(text)
    new_process()
    assert times_of(LARGE) == {TORCH: 1.0}


def test_a_folder_that_cannot_be_written_to_is_no_reason_to_fail(measured: list) -> None:
    kept_times.FOLDER.write_text("a file")
    measured += [{TORCH: 1.0}]
    assert times_of(LARGE) == {TORCH: 1.0}


def test_small_models_are_not_timed(measured: list) -> None:
    model = make_model().requires_grad_(False)
    assert choose_library(model) is None
    assert bf16_gain([nn.Linear(8, 8)]) is None


CHOSEN = [
    # seconds of torch and of oneDNN, the library
    (1.0, 1.0, TORCH),
    (1.04, 1.0, TORCH),
    (1.06, 1.0, ONEDNN),
    (1.0, 2.0, TORCH),
]


@pytest.mark.parametrize(("torch_seconds", "onednn_seconds", "chosen"), CHOSEN)
def test_onednn_computes_only_where_it_is_faster_by_a_margin(
    torch_seconds: float, onednn_seconds: float, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    times = {TORCH: torch_seconds, ONEDNN: onednn_seconds, BF16: 0.5}
    monkeypatch.setattr(library, "are_large", lambda shapes: True)
    monkeypatch.setattr(library, "product_times", lambda shapes: asked.append(shapes) or times)
    model = make_model().requires_grad_(False)
    choice = choose_library(model)
    assert choice is not None
    assert choice.value == chosen
    use_fast_layers(model, fast_kinds(choice.value))
    assert library_of(model) == chosen
    config = model.config
    width, inner = config.hidden_size, config.intermediate_size
    assert (inner, width, 2 * config.num_hidden_layers) in asked[0]
    assert (width, inner, config.num_hidden_layers) in asked[0]
    gain = min(torch_seconds, onednn_seconds) / 0.5
    assert bf16_gain([nn.Linear(8, 8)]) == pytest.approx(gain)
