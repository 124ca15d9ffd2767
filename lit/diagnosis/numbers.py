"""Checks of single functions on a device, each against a plain reference."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from data.planning.batch import collate
from data.types import IGNORE, Batch, Example
from lit.device.precision import PRECISIONS
from lit.diagnosis.machine import Machine, WrongError
from lit.diagnosis.sample import SMALL, VOCABULARY, make_model
from lit.model.loss import summed_loss
from lit.packing.decoder import decoder_of
from lit.packing.hidden_states import hidden_states
from lit.packing.pack import pack, unpacked
from lora.dropout import drop
from lora.lora_function import lean_sum

LENGTHS = (9, 300, 2, 40, 17)
FAMILIES: dict[str, dict[str, object]] = {"llama": {}, "mistral": {"sliding_window": 16}}
"""Model families, one with a window that some rows exceed."""
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 3e-2, torch.float16: 1e-2}
"""The relative difference that rounding may cause between two shapes of the same computation.

An NVIDIA GPU may compute float32 products in TF32 where a person allowed it.
"""


def check_packing(machine: Machine) -> str:
    """Compare rows that lie end to end with rows one by one, in each dtype."""
    found = []
    for family, changes in FAMILIES.items():
        for dtype in _dtypes(machine):
            model = _model_on(machine, dtype, family, **changes)
            batch = _batch(machine)
            reason = pack(model, batch)
            if reason is not None:
                raise WrongError(f"{family} in {_name(dtype)} is not packed: {reason}")
            together = hidden_states(model, batch)[0]
            with unpacked(model):
                decoder = decoder_of(model)
                alone = torch.cat([decoder(input_ids=ids)[0][0] for ids in _rows(batch)])
            found.append(_compare(f"{family} {_name(dtype)}", together, alone, TOLERANCE[dtype]))
    return "; ".join(found)


def check_loss(machine: Machine) -> str:
    """Compare the loss and its gradient with cross entropy over all logits."""
    found = []
    for dtype in _dtypes(machine):
        model = _model_on(machine, dtype)
        batch = _batch(machine)
        if reason := pack(model, batch):
            raise WrongError(f"not packed: {reason}")
        weight = cast(Tensor, model.get_input_embeddings().weight)
        ours = summed_loss(model, batch)
        (gradient,) = torch.autograd.grad(ours, weight)
        with unpacked(model):
            plain = _plain_loss(model, batch)
        (expected,) = torch.autograd.grad(plain, weight)
        found.append(_compare(f"loss {_name(dtype)}", ours, plain, TOLERANCE[dtype]))
        found.append(_compare("gradient", gradient, expected, 3 * TOLERANCE[dtype]))
    return "; ".join(found)


def check_dropout(machine: Machine) -> str:
    """Compare the LoRA function and its gradients with the plain formula under one mask."""
    torch.manual_seed(0)
    x, A, B, y = (
        torch.randn(shape).to(machine.device) for shape in ((64, 96), (8, 96), (80, 8), (64, 80))
    )
    gradients = []
    for fused in (True, False):
        leaves = [tensor.clone().requires_grad_() for tensor in (x, A, B)]
        torch.manual_seed(1)  # both draw the same mask
        if fused:
            output = lean_sum(y.clone(), leaves[0], leaves[1], leaves[2], 2.0, 0.25)
        else:
            output = y + 2.0 * drop(leaves[0], 0.25) @ leaves[1].T @ leaves[2].T
        gradients.append([output, *torch.autograd.grad(output.square().sum(), leaves)])
    found = [
        _compare(name, ours, plain, TOLERANCE[torch.float32])
        for name, ours, plain in zip(("output", "x", "A", "B"), *gradients, strict=True)
    ]
    zeros = (drop(torch.ones(1000, 1000, device=machine.device), 0.25) == 0).float().mean().item()
    if abs(zeros - 0.25) > 0.003:
        raise WrongError(f"dropout of 0.25 makes {zeros:.4f} of the values zero")
    return f"{zeros:.4f} of the values dropped at 0.25; " + "; ".join(found)


def _model_on(
    machine: Machine, dtype: torch.dtype, family: str = "llama", **changes: object
) -> PreTrainedModel:
    model: nn.Module = make_model(SMALL, family, **changes)
    return cast(PreTrainedModel, model.to(machine.device, dtype))


def _batch(machine: Machine) -> Batch:
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(3, VOCABULARY, (n,), generator=generator).tolist() for n in LENGTHS]
    return collate([Example(ids, [IGNORE, *ids[1:]]) for ids in rows]).to(machine.device)


def _rows(batch: Batch) -> list[Tensor]:
    return list(batch.input_ids.split(LENGTHS, dim=1))


def _plain_loss(model: PreTrainedModel, batch: Batch) -> Tensor:
    logits = [model(input_ids=ids).logits[0, :-1].float() for ids in _rows(batch)]
    targets = [ids[0, 1:] for ids in _rows(batch)]
    return F.cross_entropy(torch.cat(logits), torch.cat(targets), reduction="sum")


def _dtypes(machine: Machine) -> list[torch.dtype]:
    """Return the dtypes that a run can compute in on this device."""
    kind = machine.device.type
    half = {"cpu": [torch.bfloat16], "mps": [torch.float16]}.get(kind, [torch.float16])
    if machine.traits.has_bf16:
        half = [torch.float16, torch.bfloat16]
    return [torch.float32, *(dtype for dtype in half if dtype in PRECISIONS.values())]


def _compare(name: str, ours: Tensor, expected: Tensor, tolerance: float) -> str:
    ours, expected = ours.detach().float(), expected.detach().float()
    difference = float((ours - expected).norm() / expected.norm())
    if not difference <= tolerance:
        raise WrongError(f"{name} differs by {difference:.1e} from the reference, relative")
    return f"{name} {difference:.0e}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
