"""The calculations behind the tables of docs/scale.md."""

import json
from dataclasses import astuple, fields, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL, make_model
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.scale.__main__ import DOCUMENT, TABLES, renew
from benchmarks.scale.bases import BASES, Base, decoder_layers, empty, flops_of_a_token
from benchmarks.scale.footprint import KINDS, Footprint, footprint, shard
from benchmarks.scale.imbalance import Batching, simulate
from benchmarks.scale.speed import MACHINES, Setting, Work, step
from benchmarks.scale.traffic import Sizes, ddp, fsdp, fsdp_in_full, sizes
from lit.preflight.checkup import examine
from lit.preflight.meta_step import trace_step
from lit.settings.arguments import parse
from lora.config import LoRAConfig
from lora.inject import count_parameters, inject

LARGER = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 6, "head_dim": 16}
TINY = Base("llama", SMALL | LARGER | {"tie_word_embeddings": False}, 0.0)
TIED = Base("qwen2", SMALL | LARGER | {"tie_word_embeddings": True}, 0.0)
RANDOM = np.random.default_rng(0)
LENGTHS = {
    "even": RANDOM.integers(20, 200, 8000),
    "heavy tail": np.clip(RANDOM.lognormal(4, 1.1, 8000), 4, 1000).astype(np.int64),
    "all equal": np.full(8000, 50),
}
BATCHINGS = (Batching(4), Batching(4, accumulate=4), Batching(1000, 1000, 4))
WORLDS = (1, 2, 8, 64)

every_base = pytest.mark.parametrize("base", [TINY, TIED], ids=["untied", "tied"])


@pytest.mark.parametrize("name", BASES)
def test_a_base_has_the_parameter_count_of_its_model_card(name: str) -> None:
    assert count_parameters(empty(BASES[name])).total / 1e9 == pytest.approx(
        BASES[name].published, rel=0.01
    )


def test_the_embedded_model_is_the_smallest_base(embedded: Path) -> None:
    config = json.loads((embedded / "config.json").read_text())
    numbers = BASES["SmolLM2 135M"].numbers
    assert {name: config[name] for name in numbers} == numbers


def test_the_memory_table_agrees_with_the_estimate_of_lit_check(
    tmp_path: Path, embedded: Path
) -> None:
    row = {"prompt": "the " * 40, "response": "a " * 40}
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row | {"id": i}) + "\n" for i in range(8)))
    command = [
        *("--model.base", str(embedded), "--data.path", str(rows), "--data.val_fraction", "0"),
        *("--output_dir", str(tmp_path / "run"), "--trainer.accelerator", "cpu"),
        *("--model.lora.r", "16", "--model.lora.target_modules", "all-linear"),
    ]
    checkup = examine(parse(command))
    parts = checkup.estimate.parts
    batch = checkup.lengths[checkup.forecast.first.rows(0, 0)].tolist()
    labels = int(checkup.forecast.first.labels[0])
    memory, parameters = footprint(BASES["SmolLM2 135M"], "fp32", 16, batch, labels)
    assert parameters == checkup.estimate.parameters
    # On a CPU the estimate includes the process's libraries, and nothing is gathered.
    assert (*astuple(memory)[:-1], parts["Python and libraries"]) == tuple(parts.values())
    assert memory.gathered == 0


@every_base
@pytest.mark.parametrize("kind", KINDS)
def test_parts_sum_to_the_total(base: Base, kind: str) -> None:
    memory, _ = footprint(base, kind, 4, [100, 60], 80)
    assert memory.total == sum(getattr(memory, field.name) for field in fields(Footprint))
    assert all(part > 0 for part in astuple(memory)[:-1])


@every_base
def test_activations_are_proportional_to_tokens(base: Base) -> None:
    few, many = (footprint(base, "bf16", 4, [tokens], 50)[0].activations for tokens in (64, 640))
    assert many == 10 * few


@every_base
def test_sharding_increases_no_part_except_the_gathered_one(base: Base) -> None:
    unsharded, _ = footprint(base, "bf16", 4, [100], 50)
    runs = [shard(unsharded, base, "bf16", devices) for devices in (1, 2, 4, 8)]
    assert runs[0] == unsharded
    for fewer, more in pairwise(runs):
        assert more.total < fewer.total or fewer is unsharded
        parts = zip(astuple(fewer)[:-1], astuple(more)[:-1], strict=True)
        assert all(b <= a for a, b in parts)
    assert runs[-1].weights == pytest.approx(unsharded.weights / 8, rel=0.05)


@every_base
def test_the_gathered_part_is_two_blocks_and_the_layers_outside_of_blocks(base: Base) -> None:
    unsharded, _ = footprint(base, "bf16", 4, [100], 50)
    model = empty(base)
    blocks = [sum(p.nbytes for p in layer.parameters()) for layer in decoder_layers(model)]
    head = model.get_output_embeddings().weight.nbytes
    norm = model.base_model.norm.weight.nbytes
    gathered = shard(unsharded, base, "bf16", 2).gathered
    assert gathered == norm + head + max(2 * blocks[0], (base is TINY) * head + blocks[0])


def test_one_process_sends_nothing_and_more_send_less_than_twice_the_gradients() -> None:
    size = sizes(TINY, 4)
    for sent in (ddp(size.adapter, 1), fsdp(size, 1), fsdp_in_full(size, 1)):
        assert sent == 0
    several = [ddp(size.adapter, count) for count in (2, 3, 8, 1000)]
    assert several == sorted(several)
    assert several[0] == size.adapter
    assert several[-1] < 2 * size.adapter


def test_a_ring_all_reduce_sends_what_the_formula_says() -> None:
    """Each of W processes sends W - 1 parts to sum them, and W - 1 parts to share the sums."""
    world_size, parts = 4, [[1.0 * rank + part for part in range(4)] for rank in range(4)]
    sent = 0
    for sharing in (False, True):
        for offset in range(world_size - 1):
            messages = []
            for rank in range(world_size):
                part = (rank - offset + sharing) % world_size
                messages.append((rank, part, parts[rank][part]))
            for rank, part, value in messages:
                receiver = (rank + 1) % world_size
                parts[receiver][part] = value if sharing else parts[receiver][part] + value
                sent += 1
    assert parts == [[6.0 + 4 * part for part in range(4)]] * 4
    assert sent / world_size == ddp(world_size, world_size)


def test_sharding_sends_the_base_and_full_training_sends_more() -> None:
    size = Sizes(blocks=1000, embeddings=60, outside=40, adapter=10, layers=4)
    assert fsdp(size, 2) == (2 * 1060 + 40) / 2 + 10
    assert fsdp(size, 2, 3) == 3 * (2 * 1060 + 40) / 2 + 10
    assert fsdp_in_full(size, 2) == (2 * 1060 + 40 + 1100) / 2


@pytest.mark.parametrize("world_size", WORLDS)
@pytest.mark.parametrize("batching", BATCHINGS, ids=str)
@pytest.mark.parametrize("source", LENGTHS)
def test_the_plan_balances_ranks_at_least_as_well_as_round_robin(
    source: str, batching: Batching, world_size: int
) -> None:
    found = simulate(LENGTHS[source], batching, world_size)
    steps = {len(part) for part in astuple(found)}
    assert len(steps) == 1
    assert steps != {0}
    assert (found.dealt >= 1 - 1e-9).all()
    assert (found.dealt <= found.dealt_by_turn + 1e-9).all()
    assert (found.in_turn <= found.padded + 1e-9).all()
    assert np.median(found.dealt) <= np.median(found.in_turn) + 1e-9
    assert np.quantile(found.dealt, 0.95) <= np.quantile(found.in_turn, 0.95) + 1e-9


def test_equal_rows_are_balanced_over_ranks() -> None:
    found = simulate(LENGTHS["all equal"], Batching(4, accumulate=2), 8)
    for part in (found.dealt, found.in_turn, found.padded, found.dealt_by_turn):
        assert (part == 1).all()
    assert (found.mean == 4 * 2 * 50).all()


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
def test_operations_equal_those_that_torch_counts(checkpointing: bool) -> None:
    """Attention, which torch's counter does not know, and the first layer's inputs are left out."""
    model = make_model(**{**SMALL, **LARGER, "num_hidden_layers": 8})
    config = model.config
    with torch.device("meta"):
        model = type(model)(config)
    inject(model, LoRAConfig(target_modules="all-linear"))
    tokens = 64
    with FlopCounterMode(display=False) as counter:
        trace_step(model, [tokens], tokens // 2, checkpointing)
    ours = tokens * flops_of_a_token(model, 0, 0.5, checkpointing)
    assert ours == pytest.approx(counter.get_total_flops(), rel=0.03)


def test_more_devices_make_steps_faster_if_the_model_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    even = {devices: 64 * 4096 / devices for devices in (1, 2, 8, 64)}
    work = Work(300.0, even, even)
    setting = Setting("SmolLM2 135M", "A100, NVLink, 8 x 200 Gbit/s", False, False)
    times = [step(setting, devices, work) for devices in even]
    assert all(sum(a) > sum(b) for a, b in pairwise(filter(None, times)))
    assert times[0] is not None
    assert times[0][1] == 0
    small = replace(MACHINES[setting.machine], memory=1e9)
    monkeypatch.setitem(MACHINES, setting.machine, small)
    assert step(setting, 1, work) is None


@pytest.mark.parametrize("name", ["traffic", "machines"])
def test_the_tables_of_the_document_are_up_to_date(name: str) -> None:
    text = DOCUMENT.read_text("utf-8")
    assert renew(text, {name: TABLES[name]()}) == text


def test_no_link_between_machines_is_faster_than_one_inside_a_machine() -> None:
    for machine in MACHINES.values():
        assert machine.bandwidth(1) >= machine.bandwidth(64) > 0
