"""Dropout masks: their rate and independence, by a generator and by a hash."""

import threading

import pytest
import torch
from torch import Tensor

from lit.preflight.meta_step import LiveBytes
from lora import dropout
from lora.dropout import RARE, dropout_mask, hashed_words

CPU = torch.device("cpu")
WORDS = 2**20


@pytest.fixture(params=["generator", "hash"])
def source(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the random bits come from; the hash of another device is computed on the CPU."""
    monkeypatch.setattr(dropout, "HASHED_ON", {"cpu"} if request.param == "hash" else ())
    return request.param


def surprise(counts: Tensor) -> float:
    """Return by how many standard deviations chi-square is off for equally likely cells."""
    cells, expected = len(counts), counts.sum() / len(counts)
    chi_square = ((counts - expected) ** 2 / expected).sum()
    return abs(float(chi_square - (cells - 1))) / (2 * (cells - 1)) ** 0.5


def words_as_bytes(seed: int, count: int = WORDS) -> Tensor:
    return hashed_words(0, count, seed, CPU).view(torch.uint8).long()


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9, 1e-6, 1 - 1e-6])
def test_dropout_keeps_the_fraction_that_it_reports_at_every_position(rate, source):
    shape = torch.Size((1000, 401))
    mask, kept = dropout_mask(shape, rate, 7, torch.empty(0))
    assert abs(kept - (1 - rate)) < (2**-8.9 if RARE < rate < 1 - RARE else 2**-16)
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    deviation = (kept * (1 - kept)) ** 0.5
    for position in range(8):  # one 64-bit random number gives eight elements
        elements = mask.flatten()[position::8]
        assert abs(elements.mean() - kept) < 5 * deviation / len(elements) ** 0.5 + 1e-6
    # In a row the neighbors are 1 apart, and between rows 401.
    for distance in (1, 2, 4, 401):
        both = (mask.flatten()[distance:] * mask.flatten()[:-distance]).mean()
        assert abs(both - kept**2) < 6 * deviation / mask.numel() ** 0.5 + 1e-6


def test_a_mask_depends_on_its_seed_alone_and_changes_no_random_state(source):
    shape, like = torch.Size((40, 10)), torch.empty(0)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first, again, other = (dropout_mask(shape, 0.5, seed, like)[0] for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_thread_makes_one_generator_for_all_masks(monkeypatch):
    made = []
    real = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda device: made.append(device) or real(device))
    like = torch.empty(0)

    def draw() -> None:
        for seed in range(5):
            mask = dropout_mask(torch.Size((8, 8)), 0.5, seed, like)[0]
            fresh = torch.empty(8, dtype=torch.int64)
            fresh.random_(-(2**63), None, generator=real().manual_seed(seed))
            assert torch.equal(mask.view(-1), (fresh.view(torch.int8) >= 0).float())

    thread = threading.Thread(target=draw)
    thread.start()
    thread.join()
    assert made == [CPU]


@pytest.mark.parametrize("seed", [0, 2**61 + 5])
def test_the_hash_is_that_of_whole_numbers_of_any_size(seed):
    keys = [word % 2**32 for word in dropout.keys_of(seed)]

    def reference(index: int) -> int:
        x = (index + keys[0]) % 2**32
        x = (x ^ x >> 17) * 0xED5AD4BB % 2**32
        x = (x ^ x >> 11) * 0xAC4C1B51 % 2**32 ^ keys[1]
        x = (x ^ x >> 15) * 0x31848BAB % 2**32
        return x ^ x >> 14

    words = hashed_words(1000, 1064, seed, CPU).tolist()
    assert [word % 2**32 for word in words] == [reference(index) for index in range(1000, 1064)]


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_the_bytes_of_the_hash_are_even_and_those_of_neighbors_unrelated(seed):
    flat = words_as_bytes(seed)
    for place in range(4):
        assert surprise(flat[place::4].bincount(minlength=256).double()) < 4.5
    # Widths of models are among the distances: elements one above the other.
    for distance in (1, 2, 3, 4, 64, 576, 1024, 1536, 3584, 4096):
        pairs = flat[:-distance] * 256 + flat[distance:]
        assert surprise(pairs.bincount(minlength=2**16).double()) < 4.5, distance


@pytest.mark.parametrize("other", [1, 2, 2**32, 2**61])
def test_nearby_seeds_have_unrelated_hashes(other):
    pairs = words_as_bytes(0) * 256 + words_as_bytes(other)
    assert surprise(pairs.bincount(minlength=2**16).double()) < 4.5


@pytest.mark.parametrize("rate", [0.1, 1e-3])
def test_a_mask_that_is_hashed_in_parts_is_the_same(rate, monkeypatch):
    monkeypatch.setattr(dropout, "HASHED_ON", {"cpu"})
    shape, like = torch.Size((17, 23)), torch.empty(0)
    whole = dropout_mask(shape, rate, 3, like)[0]
    monkeypatch.setattr(dropout, "CHUNK", 5)
    assert torch.equal(dropout_mask(shape, rate, 3, like)[0], whole)


def test_hashing_a_large_mask_takes_little_memory_beside_it(monkeypatch):
    monkeypatch.setattr(dropout, "HASHED_ON", {"meta"})
    shape = torch.Size((1, 16384, 8192))
    with LiveBytes() as live:
        dropout_mask(shape, 0.1, 3, torch.empty(0, device="meta"))
    assert live.peak - 4 * shape.numel() < 2**25
