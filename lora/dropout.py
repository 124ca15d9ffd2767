"""Dropout masks that are drawn again from a seed instead of being kept."""

import hashlib
import struct
import threading

import torch
from torch import Tensor

RARE = 0.03
"""Dropout draws 8 random bits for each element and meets its probability to within 1 / 512. Below
RARE, and above 1 - RARE, it draws 16 bits and meets the probability to within 1 / 131072."""
HASHED_ON = frozenset({"mps"})
"""Devices whose generator cannot fill whole numbers of 64 bits: there a hash of the index does."""
CHUNK = 2**21
"""Words of 32 bits that are hashed at a time, so that temporary tensors stay below 32 MB."""


class _Generators(threading.local):
    """The generators of a thread, one for each device."""

    def __init__(self) -> None:
        self.by_device: dict[torch.device, torch.Generator] = {}

    def seeded(self, device: torch.device, seed: int) -> torch.Generator:
        """Return the generator of a device, as if it were new and had that seed."""
        if device not in self.by_device:
            self.by_device[device] = torch.Generator(device)
        return self.by_device[device].manual_seed(seed)


_generators = _Generators()


def drop(x: Tensor, dropout: float) -> Tensor:
    """Return dropout(x), with the mask that ``LoRAFunction`` draws in the same random state."""
    if not dropout:
        return x
    mask, kept = dropout_mask(x.shape, dropout, draw_seed(), x)
    return mask.mul_(x) / kept


def dropout_mask(
    shape: torch.Size, dropout: float, seed: int, like: Tensor
) -> tuple[Tensor, float]:
    """Draw a dropout mask that depends on the seed and the kind of device alone, in any thread.

    Args:
        shape: Shape of the mask.
        dropout: Probability of a zero, in (0, 1).
        seed: Seed of the mask; no other random state is read or changed.
        like: A tensor with the mask's device and dtype.

    Returns:
        The mask of ones and zeros, and the exact probability of a one. Dividing by that probability
        keeps the expected value.
    """
    dtype = torch.int8 if RARE < dropout < 1 - RARE else torch.int16
    levels = 2 ** (8 * dtype.itemsize)
    zeros = min(max(round(dropout * levels), 1), levels - 1)
    mask = torch.empty(shape, dtype=like.dtype, device=like.device)
    fill = _fill_by_hash if like.device.type in HASHED_ON else _fill_by_generator
    fill(mask, zeros - levels // 2, dtype, seed)
    return mask, 1 - zeros / levels


def draw_seed() -> int:
    """Draw the seed of a mask."""
    # From torch's CPU generator on every device: it costs no synchronization, and checkpointing
    # restores this generator before it recomputes, so the same mask returns. Threads share that
    # generator: where two train at once, each mask is still valid, and which thread draws which
    # seed depends on their timing. Processes have one generator each.
    return int(torch.randint(2**62, (), device="cpu"))


def _fill_by_generator(mask: Tensor, least: int, dtype: torch.dtype, seed: int) -> None:
    """Set each element of a mask to whether its random number of a dtype is at least ``least``."""
    # One 64-bit number serves eight elements: twelve times faster on a CPU than bernoulli_.
    count = -(-mask.numel() * dtype.itemsize // 8)
    numbers = torch.empty(count, dtype=torch.int64, device=mask.device)
    # The meta device has shapes and no numbers, so it has no generator.
    generator = None if mask.is_meta else _generators.seeded(mask.device, seed)
    bits = numbers.random_(-(2**63), None, generator=generator).view(dtype)
    torch.ge(bits[: mask.numel()].view(mask.shape), least, out=mask)


def _fill_by_hash(mask: Tensor, least: int, dtype: torch.dtype, seed: int) -> None:
    """Do the same with a hash of seed and index for a random number; it needs no generator."""
    elements, each = mask.view(-1), 4 // dtype.itemsize
    for start in range(0, mask.numel(), CHUNK * each):
        part = elements[start : start + CHUNK * each]
        first = start // each
        words = hashed_words(first, first - (-len(part) // each), seed, mask.device)
        part.copy_(words.view(dtype)[: len(part)] >= least)


def hashed_words(start: int, stop: int, seed: int, device: torch.device) -> Tensor:
    """Return the hashes of seed and index for a range of indices, (stop - start,), int32.

    The hash is triple32 of Chris Wellons' hash prospector, keyed at two places: three rounds, since
    two leave neighbors that are a few hundred words apart related. Whole numbers of 32 bits wrap
    around the same way on every device, so every device computes the same words.
    """
    key, second_key = keys_of(seed)
    x = torch.arange(start, stop, dtype=torch.int32, device=device).add_(key)
    _fold(x, 17).mul_(_signed(0xED5AD4BB))
    _fold(x, 11).mul_(_signed(0xAC4C1B51)).bitwise_xor_(second_key)
    _fold(x, 15).mul_(_signed(0x31848BAB))
    return _fold(x, 14)


def keys_of(seed: int) -> tuple[int, int]:
    """Return two keys of 32 bits that depend on all bits of a seed: nearby seeds are unrelated."""
    digest = hashlib.blake2b(seed.to_bytes(8, "little"), digest_size=8).digest()
    first, second = struct.unpack("<ii", digest)
    return first, second


def _fold(x: Tensor, shift: int) -> Tensor:
    """Xor the high bits of each word onto its low bits, in place."""
    # A shift to the right copies the sign, so the copies are cut off.
    return x.bitwise_xor_((x >> shift).bitwise_and_(2 ** (32 - shift) - 1))


def _signed(word: int) -> int:
    """Return the int32 with the bits of an unsigned word."""
    return word - 2**32 if word >= 2**31 else word
