"""A device that is not here: fake tensors, with the values that a program's control flow needs.

Whole numbers and booleans keep real values beside them, so borders, labels and places are right.
So do a few floats, because counts pass through them; what is not known of these is NaN. What a real
device would do and a fast step must not is counted by place and kind.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

aten = torch.ops.aten
ROOT = Path(__file__).parents[2]
PRODUCT = tuple(str(ROOT / package) for package in ("lit", "lora", "data"))
FEW = 4
"""Floats of a tensor whose values are kept."""
READS = {
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten.masked_select.default,
    aten.nonzero.default,
    aten._unique2.default,
    aten.unique_consecutive.default,
}
"""Operations that wait for the device: the host needs a number of the result."""
VALUE_SHAPED = READS | {aten.repeat_interleave.Tensor, aten.index.Tensor}
"""Operations whose result has a shape that depends on values."""
FACTORIES = {
    aten.arange.default,
    aten.arange.start,
    aten.arange.start_step,
    aten.full.default,
    aten.ones.default,
    aten.scalar_tensor.default,
    aten.zeros.default,
}
FILLS = {
    aten.new_full.default,
    aten.new_ones.default,
    aten.new_zeros.default,
    aten.full_like.default,
    aten.ones_like.default,
    aten.zeros_like.default,
}
"""Operations whose result does not depend on the values of their input."""
PINNING = {aten.pin_memory.default, aten._pin_memory.default}
FULL_RANGE = getattr(aten.random_, "from")
UNKNOWN = 1.0
"""What is read where a float is not known: a finite loss, a gradient that is not zero."""


class AnyDevice(FakeTensorMode):
    """Fake tensors on a device that this torch was not built for."""

    @property
    def avoid_device_init(self) -> bool:
        """Never start the device's runtime, whatever ``torch.cuda.is_available`` says."""
        return True


class Watch(TorchDispatchMode):
    """Counts what a device would wait for, and keeps known values.

    Args:
        device_type: The simulated device, such as ``cuda``.
    """

    def __init__(self, device_type: str) -> None:
        super().__init__()
        self.device_type = device_type
        self.counts: dict[str, Counter[str]] = {}
        self.phase = "made"
        self.operations: set[str] = set()
        """Operations of torch that ran on the device."""
        self._values = WeakIdKeyDictionary()
        self._pinned = WeakIdKeyDictionary()

    @property
    def phase(self) -> str:
        """The name under which events are counted now."""
        return self._phase

    @phase.setter
    def phase(self, name: str) -> None:
        self._phase = name
        self.counts.setdefault(name, Counter())

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Count under another name for a while."""
        before, self.phase = self.phase, phase
        try:
            yield
        finally:
            self.phase = before

    def note(self, kind: str) -> None:
        """Count an event at the place of the product that caused it."""
        self.counts[self.phase][f"{kind} @ {place()}"] += 1

    def value(self, x: Tensor) -> Tensor | None:
        """Return the real values of a tensor where they are known."""
        if not isinstance(x, FakeTensor):
            return x
        known = self._values.get(x)
        if known is None and x.is_floating_point() and x.numel() <= FEW:
            with unset_fake_temporarily():
                return torch.full(x.shape, torch.nan, dtype=x.dtype)
        return known

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Count the operation, run it on known values, and run it on fake tensors."""
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if any(is_traceable_wrapper_subclass(x) for x in tensors):
            return NotImplemented  # a nested tensor: what it calls on its parts is counted
        self._count(func, tensors, args, kwargs)
        known = self._run(func, tensors, args, kwargs)
        if func is aten._local_scalar_dense.default:
            return self._scalar(tensors[0], known)
        if func is aten.is_pinned.default:
            return tensors[0] in self._pinned
        if func is aten.equal.default:
            return True if known is None else known
        if func in VALUE_SHAPED and known is not None:
            device = tensors[0].device
            out = tree_map(lambda x: torch.empty(x.shape, dtype=x.dtype, device=device), known)
        elif func in PINNING:
            out = aten.clone.default(args[0])
            self._pinned[out] = True
        elif func is aten._efficient_attention_backward.default:
            # torch's own formula for fake tensors lacks an argument of this operation.
            out = (*map(torch.empty_like, args[1:4]), args[1].new_empty(0))
        else:
            out = func(*args, **kwargs)
        reals = tree_leaves(known) if known is not None else []
        for made, real in zip_longest(tree_leaves(out), reals):
            if isinstance(made, FakeTensor):
                self._remember(func, made, real)
        return out

    def _remember(self, func: Any, made: FakeTensor, real: Tensor | None) -> None:
        if made.device.type == self.device_type:
            self.operations.add(f"{func.namespace}::{func.__name__}")
            if made.dtype == torch.float64:
                self.note("float64")
        self._values.pop(made, None)  # an operation in place has changed them
        if not isinstance(real, Tensor) or made.shape != real.shape or made.dtype != real.dtype:
            return
        if not made.is_floating_point() or made.numel() <= FEW:
            self._values[made] = real

    def _run(self, func: Any, tensors: list[Tensor], args: tuple, kwargs: dict) -> Any:
        """Return the result on known values; None where they are not known."""
        if not tensors and func not in FACTORIES:
            return None
        values = {id(x): self.value(x) for x in tensors}
        if any(value is None for value in values.values()):
            return None
        fakes = [x for x in tensors if isinstance(x, FakeTensor)]
        if fakes and func not in FILLS and not any(x in self._values for x in fakes):
            return None  # nothing but small floats that are not known

        def real(x: Any) -> Any:
            if isinstance(x, Tensor):
                return values[id(x)]
            return torch.device("cpu") if isinstance(x, torch.device) else x

        if func in PINNING:
            return values[id(tensors[0])]
        with unset_fake_temporarily():
            unknown = any(v.is_floating_point() and v.isnan().any() for v in values.values())
            result = func(*tree_map(real, args), **tree_map(real, kwargs))
        whole = any(
            isinstance(x, Tensor) and not x.is_floating_point() for x in tree_leaves(result)
        )
        # Whether a number that is not known is finite, or above another, is not known either.
        return None if unknown and whole and func not in FILLS else result

    @staticmethod
    def _scalar(x: Tensor, known: Any) -> Any:
        if known is not None and known == known:
            return known
        if x.is_floating_point():
            return UNKNOWN
        return True if x.dtype == torch.bool else 1

    def _count(self, func: Any, tensors: list[Tensor], args: tuple, kwargs: dict) -> None:
        on_device = any(x.device.type == self.device_type for x in tensors)
        if on_device and func is FULL_RANGE and args[2] is None:
            self.note("random numbers of 64 bits")
        if on_device and (func in READS or self._selects(func, args, kwargs)):
            self.note("read")
        if func in (aten._to_copy.default, aten.copy_.default):
            source = tensors[0] if func is aten._to_copy.default else tensors[1]
            to = kwargs.get("device", source.device)
            to = torch.device(to) if func is aten._to_copy.default else tensors[0].device
            self._count_copy(source, to, bool(kwargs.get("non_blocking") or True in args[2:]))

    def _count_copy(self, source: Tensor, to: torch.device, non_blocking: bool) -> None:
        if self.device_type not in (source.device.type, to.type) or source.device.type == to.type:
            return
        way = "to" if to.type == self.device_type else "from"
        waits = "" if non_blocking else "blocking "
        pageable = "pageable " if way == "to" and source not in self._pinned else ""
        self.note(f"{waits}{pageable}copy {way}")

    @staticmethod
    def _selects(func: Any, args: tuple, kwargs: dict) -> bool:
        """Return whether an operation must count the true elements of a mask first."""
        if func is aten.repeat_interleave.Tensor:
            return kwargs.get("output_size") is None
        if func not in (aten.index.Tensor, aten.index_put_.default, aten.index_put.default):
            return False
        if func is not aten.index.Tensor and args[2].numel() == 1:
            return False  # computed as masked_fill
        return any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1])


@contextmanager
def methods(watch: Watch) -> Iterator[None]:
    """Replace methods that a fake tensor has not, or does in another way.

    ``tolist`` is one wait, as on a device; a fake tensor reads each number alone.
    """
    deepcopy = Tensor.__deepcopy__

    def read(self: FakeTensor) -> Any:
        if self.device.type == watch.device_type:
            watch.note("read")
        known = watch.value(self)
        whole = not self.is_floating_point() and self.dtype != torch.bool
        assert known is not None or not whole, "whole numbers that the simulation does not know"
        with unset_fake_temporarily():
            if known is None:
                known = torch.full(self.shape, UNKNOWN, dtype=self.dtype)
            return (known.nan_to_num(UNKNOWN) if known.is_floating_point() else known).tolist()

    def copied(self: Tensor, memo: dict) -> Tensor:
        return self.detach().clone() if isinstance(self, FakeTensor) else deepcopy(self, memo)

    with patch.object(FakeTensor, "tolist", read), patch.object(Tensor, "__deepcopy__", copied):
        yield


def place() -> str:
    """Return file and function: the innermost one of the product, else that of a library."""
    frame, library = sys._getframe(2), "?"
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(PRODUCT):
            return f"{Path(name).relative_to(ROOT).as_posix()}:{frame.f_code.co_name}"
        if library == "?" and "site-packages" in name:
            path = Path(name.split("site-packages/")[-1]).as_posix()
            # torch's own dispatch is everywhere, and says nothing.
            if not path.startswith(("torch/utils/_", "torch/_", "torch/overrides")):
                library = f"{path}:{frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return library
