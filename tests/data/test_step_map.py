"""The position of a run in its epochs, when the size of its steps changes."""

import random

import pytest

from data.planning.step_map import Segment, StepMap, describe_step_change


def sizes(epoch: int) -> int:
    """Return the micro-batches of an epoch; with max_tokens, epochs differ."""
    return 19 + epoch % 3


def new_step_map(per_step: int) -> StepMap:
    return StepMap((Segment(0, 0, 0, per_step),), sizes)


def count_steps(step_map: StepMap, steps: int) -> list[list[tuple[int, int]]]:
    """Return the (epoch, micro-batch) pairs of each optimizer step, counted one by one."""
    counted: list[list[tuple[int, int]]] = []
    epoch = start = 0
    for step in range(steps):
        per_step = [segment.per_step for segment in step_map.segments if segment.step <= step][-1]
        end = min(start + per_step, sizes(epoch))
        counted.append([(epoch, i) for i in range(start, end)])
        epoch, start = (epoch + 1, 0) if end == sizes(epoch) else (epoch, end)
    return counted


@pytest.mark.parametrize("seed", range(20))
def test_steps_of_any_sizes_take_every_micro_batch_once_in_order(seed: int) -> None:
    draw = random.Random(seed)
    step_map, step = new_step_map(draw.randint(1, 8)), 0
    for _ in range(draw.randint(1, 5)):
        step += draw.randint(0, 12)
        step_map = step_map.resume(step, draw.randint(1, 30))
    counted = count_steps(step_map, step + 40)
    for now, batches in enumerate(counted):
        part = step_map.at_step(now)
        per_step = [segment.per_step for segment in step_map.segments if segment.step <= now][-1]
        assert batches[0] == (part.epoch, part.skipped + (now - part.step) * per_step)
        assert part.step <= now < part.step + part.steps
    for epoch in range(counted[-1][-1][0]):
        last = max(n for n, batches in enumerate(counted) if batches[0][0] == epoch)
        assert step_map.total_steps(epoch + 1) == last + 1
        assert step_map.of_epoch(epoch) == step_map.at_step(last)


def test_resuming_with_steps_of_the_same_size_changes_nothing() -> None:
    step_map = new_step_map(6).resume(5, 4)
    assert step_map.resume(7, 4) == step_map
    assert step_map.resume(5, 4).total_steps(9) == step_map.total_steps(9)


def test_resuming_before_a_change_forgets_the_change() -> None:
    assert new_step_map(6).resume(5, 4).resume(3, 6) == new_step_map(6)


@pytest.mark.parametrize(("step", "skipped", "epoch"), [(2, 12, 0), (3, 18, 0), (4, 0, 1)])
def test_a_change_is_described_with_its_position(step: int, skipped: int, epoch: int) -> None:
    assert describe_step_change(new_step_map(6), step) == []
    assert describe_step_change(new_step_map(6).resume(step, 6), step) == []
    assert describe_step_change(new_step_map(6).resume(step, 4), step) == [
        "an optimizer step has 4 micro-batches, had 6: "
        f"from micro-batch {skipped} of epoch {epoch} on"
    ]
