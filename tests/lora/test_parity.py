"""Training beside real PEFT, step by step."""

import peft
import pytest
import torch
from conftest import ADAPTERS, make_model
from peft.optimizers import create_loraplus_optimizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from data.planning.batch import collate
from data.types import IGNORE, Example
from lit.model.loss import summed_loss
from lit.packing.pack import pack
from lora.config import PROJECTIONS, LoRAConfig
from lora.injection import count_parameters, inject, trainable_parameters
from lora.optimizer import parameter_groups

STEPS = 10


def make_rows(step: int) -> list[Example]:
    """Return rows of several lengths, each with a prompt whose tokens have no label."""
    generator = torch.Generator().manual_seed(step)
    rows = []
    for length, prompt in ((14, 5), (3, 1), (9, 8), (21, 2)):
        ids = torch.randint(3, 320, (length,), generator=generator).tolist()
        rows.append(Example(ids, [IGNORE] * prompt + ids[prompt:]))
    return rows


def padded(rows: list[Example]) -> dict[str, torch.Tensor]:
    """Return the same rows as one padded batch."""
    ids, labels = ([torch.tensor(row[i]) for row in rows] for i in (0, 1))
    return {
        "input_ids": pad_sequence(ids, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORE),
    }


SEVEN = [*PROJECTIONS]


def make_pair(kind: str) -> tuple[PreTrainedModel, peft.PeftModel]:
    """Return a small model with our adapter, and the same model with PEFT's."""
    ours, theirs = (make_model(**ADAPTERS[kind].model or {}) for _ in range(2))
    for model in (ours, theirs):
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter)
    settings = {"r": 4, "lora_alpha": 16, "target_modules": SEVEN}
    inject(ours, LoRAConfig(**settings | ADAPTERS[kind].ours))
    config = peft.LoraConfig(**settings | ADAPTERS[kind].theirs, task_type="CAUSAL_LM")
    return ours, peft.get_peft_model(theirs, config)


def paired(ours: PreTrainedModel, theirs: peft.PeftModel) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the pairs of tensors that train, ours and PEFT's, by our names."""
    other = {}
    for name, parameter in theirs.named_parameters():
        if parameter.requires_grad:
            name = name.removeprefix("base_model.model.").removesuffix(".default.weight")
            name = name.replace("modules_to_save", "trained.weight")
            name = name.replace("experts.base_layer.", "experts.adapted.gate_up_proj.")
            name = name.replace("experts.lora", "experts.adapted.down_proj.lora")
            other[name.replace("lora_magnitude_vector", "magnitude")] = parameter
    mine = trainable_parameters(ours)
    assert mine.keys() == other.keys()
    return {name: (parameter, other[name]) for name, parameter in mine.items()}


@pytest.mark.parametrize("kind", ADAPTERS)
def test_losses_gradients_and_ten_steps_equal_those_of_peft(kind):
    ours, theirs = make_pair(kind)
    pairs = paired(ours, theirs)
    with torch.no_grad():
        if kind == "pissa":  # the sign of a singular vector is arbitrary
            for name, (mine, other) in pairs.items():
                torch.testing.assert_close(mine.abs(), other.abs(), atol=1e-4, rtol=1e-3, msg=name)
        for mine, other in pairs.values():
            other.copy_(mine)
    assert pack(ours, collate(make_rows(0))) is None
    ours.train()
    theirs.train()
    optimizers = [
        torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0)
        for parameters in zip(*pairs.values(), strict=True)
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
        for name, (mine, other) in pairs.items():
            assert name.endswith("lora_A") or other.grad.any()
            torch.testing.assert_close(mine.grad, other.grad, atol=1e-5, rtol=1e-3, msg=name)
        for optimizer in optimizers:
            optimizer.step()
        losses.append([loss.item() for loss in pair])
    first, second = torch.tensor(losses).unbind(1)
    torch.testing.assert_close(first, second, atol=1e-4, rtol=0)
    for name, (mine, other) in pairs.items():
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=0, msg=name)
        assert not name.endswith("lora_B") or mine.abs().max() > 1e-3


@pytest.mark.parametrize("kind", ADAPTERS)
def test_the_numbers_of_parameters_equal_those_of_peft(kind):
    shape = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49_152}
    model = {"family": "llama"} | (ADAPTERS[kind].model or {})
    config = AutoConfig.for_model(model.pop("family"), **shape, **heads, **model)
    with torch.device("meta"):
        ours, theirs = (AutoModelForCausalLM.from_config(config) for _ in range(2))
        settings = {"r": 8, "target_modules": SEVEN}
        inject(ours, LoRAConfig(**settings | ADAPTERS[kind].ours))
        # On the meta device there are no numbers for PiSSA's SVD.
        changes = ADAPTERS[kind].theirs | {"init_lora_weights": True}
        theirs = peft.get_peft_model(theirs, peft.LoraConfig(**settings | changes))
    assert tuple(count_parameters(ours)) == theirs.get_nb_trainable_parameters()


def test_the_parameter_groups_of_loraplus_equal_those_of_peft():
    ours, theirs = make_pair("lora")
    mine = parameter_groups(ours, lr=1e-3, weight_decay=0.1, loraplus_lr_ratio=16)
    expected = create_loraplus_optimizer(
        theirs, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16, loraplus_weight_decay=0.1
    )
    pairs = {id(mine): other for mine, other in paired(ours, theirs).values()}

    def by_parameter(groups: list[dict], names: dict[int, Tensor] | None = None) -> dict:
        return {
            id(names[id(p)] if names else p): (group["lr"], group["weight_decay"])
            for group in groups
            for p in group["params"]
        }

    assert by_parameter(mine, pairs) == by_parameter(expected.param_groups)
    assert {group["lr"] for group in mine} == {1e-3, 16e-3}
