"""Training, step by step beside real PEFT."""

import peft
import pytest
import torch
from conftest import make_model
from torch.nn.utils.rnn import pad_sequence

from data.batch import collate
from data.types import IGNORE, Example
from lit.attention import pack
from lit.loss import summed_loss
from lora.config import LoRAConfig
from lora.inject import inject, tensors

STEPS = 10


def make_rows(step: int) -> list[Example]:
    """Rows of several lengths, each with a prompt that has no part in the loss."""
    generator = torch.Generator().manual_seed(step)
    rows = []
    for length, prompt in ((14, 5), (3, 1), (9, 8), (21, 2)):
        ids = torch.randint(3, 320, (length,), generator=generator).tolist()
        rows.append(Example(ids, [IGNORE] * prompt + ids[prompt:]))
    return rows


def padded(rows: list[Example]) -> dict[str, torch.Tensor]:
    """The same rows as the usual rectangle."""
    ids, labels = ([torch.tensor(row[i]) for row in rows] for i in (0, 1))
    return {
        "input_ids": pad_sequence(ids, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORE),
    }


@pytest.mark.parametrize("use_rslora", [False, True])
def test_ten_steps_end_where_peft_ends(use_rslora):
    settings = {"r": 4, "lora_alpha": 16, "use_rslora": use_rslora}
    ours, theirs = make_model("llama"), make_model("llama")
    inject(ours, LoRAConfig(**settings, target_modules="all-linear"))
    theirs = peft.get_peft_model(
        theirs, peft.LoraConfig(**settings, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    mine = tensors(ours)
    other = {
        name.removeprefix("base_model.model.").removesuffix(".default.weight"): parameter
        for name, parameter in theirs.named_parameters()
        if parameter.requires_grad
    }
    assert mine.keys() == other.keys()
    with torch.no_grad():
        for name, parameter in mine.items():
            other[name].copy_(parameter)
    assert pack(ours, collate(make_rows(0))) is None
    ours.train()
    theirs.train()
    optimizers = [
        torch.optim.AdamW(parameters.values(), lr=1e-3, weight_decay=0)
        for parameters in (mine, other)
    ]
    losses = []
    for step in range(STEPS):
        rows = make_rows(step)
        batch = collate(rows)
        pair = (
            summed_loss(ours, batch) / (batch.labels != IGNORE).sum(),
            theirs(**padded(rows)).loss,
        )
        for loss, optimizer in zip(pair, optimizers, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append([loss.item() for loss in pair])
    first, second = torch.tensor(losses).unbind(1)
    torch.testing.assert_close(first, second, atol=1e-4, rtol=0)
    for name, parameter in mine.items():
        torch.testing.assert_close(parameter, other[name], atol=1e-4, rtol=0, msg=name)
        assert not name.endswith("lora_B") or parameter.abs().max() > 1e-3
