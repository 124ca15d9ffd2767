"""Which device a command uses, and what it refuses."""

import pytest
import torch

from lit.device import device as device_module
from lit.device.device import (
    Traits,
    check_quantization,
    choose_device,
    traits,
    weakest_traits,
)
from lora.config import ConfigError

AMPERE = Traits("cuda", "NVIDIA A100", (8, 0))
TURING = Traits("cuda", "Tesla T4", (7, 5))
PASCAL = Traits("cuda", "Tesla P100", (6, 0))
APPLE, CPU = Traits("mps", "Apple GPU"), Traits("cpu", "CPU")

FOUND = {
    # asked, whether there is CUDA, whether there is MPS, the device
    "nothing there": ("auto", False, False, "cpu"),
    "a GPU": ("auto", True, False, "cuda"),
    "a Mac": ("auto", False, True, "mps"),
    "Lightning's name of a GPU": ("gpu", True, False, "cuda"),
    "Lightning's name on a Mac": ("gpu", False, True, "mps"),
    "the CPU beside a GPU": ("cpu", True, False, "cpu"),
    "the second GPU": ("cuda:1", True, False, "cuda:1"),
}


def machine_with(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2 * cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize("case", FOUND)
def test_a_device_is_found_by_its_name(case: str, monkeypatch: pytest.MonkeyPatch):
    asked, cuda, mps, device = FOUND[case]
    machine_with(monkeypatch, cuda, mps)
    assert choose_device(asked) == torch.device(device)


MISSING = {
    "cuda": (False, "`device` is cuda, and torch .* a build without CUDA: set `device` to cpu"),
    "gpu": (False, "`device` is gpu, and torch .* without CUDA"),
    "mps": (True, "`device` is mps, and torch .* is not for macOS"),
    "cuda:2": (True, "there are 2 CUDA devices: the last is cuda:1"),
    "cuda:x": (True, "choose auto, cpu, cuda, mps, or a CUDA device like cuda:1"),
    "cuda:": (True, "`device` is cuda:; choose"),
    "cpu:3": (True, "`device` is cpu:3; choose"),
    "auto:7": (True, "`device` is auto:7; choose"),
    "tpu": (False, "`device` is tpu; choose auto, cpu, cuda, mps"),
}


@pytest.mark.parametrize("asked", MISSING)
def test_a_device_that_is_not_there_is_refused_with_the_reason(
    asked: str, monkeypatch: pytest.MonkeyPatch
):
    cuda, message = MISSING[asked]
    machine_with(monkeypatch, cuda, mps=False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: False)
    with pytest.raises(ConfigError, match=message):
        choose_device(asked)


def test_the_traits_of_a_cuda_device_are_asked_of_torch(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (7, 5))
    found = traits(torch.device("cuda", 7))
    assert str(found) == "GPU 7 (compute capability 7.5)"
    assert not found.has_bf16


@pytest.mark.parametrize(
    ("devices", "name"),
    [
        ("auto", "T4"),
        (-1, "T4"),
        (1, "4090"),
        (2, "T4"),
        ([0], "4090"),
        ([1], "T4"),
        ("1,", "T4"),
        ("0,1", "T4"),
    ],
)
def test_a_run_on_several_cards_computes_in_what_the_weakest_can(
    devices: object, name: str, monkeypatch: pytest.MonkeyPatch
):
    cards = {0: Traits("cuda", "4090", (8, 9)), 1: Traits("cuda", "T4", (7, 5))}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(device_module, "traits", lambda device: cards[device.index])
    assert weakest_traits(torch.device("cuda"), devices).name == name
    assert weakest_traits(torch.device("cuda:1"), "auto").name == "T4"


QUANTIZED = {
    ("nf4", AMPERE): "",
    ("int8", AMPERE): "",
    ("int8", TURING): "",
    ("nf4", PASCAL): "",
    ("int8", PASCAL): "no 8-bit matrix product",
    ("nf4", CPU): "",
    ("int8", CPU): "",
    ("nf4", APPLE): "not known to work on mps",
    (None, APPLE): "",
}


@pytest.mark.parametrize(("kind", "device"), QUANTIZED)
def test_a_quantization_that_a_device_cannot_compute_is_refused(kind: str | None, device: Traits):
    if message := QUANTIZED[kind, device]:
        with pytest.raises(ConfigError, match=message):
            check_quantization(kind, device)
    else:
        check_quantization(kind, device)
