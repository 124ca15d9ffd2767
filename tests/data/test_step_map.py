"""Where a run stands in its epochs, however its steps change in size."""

import random

import pytest

from data.step_map import Segment, StepMap, describe_step_change


def sizes(epoch: int) -> int:
    """Micro-batches of an epoch, which max_tokens lets differ."""
    return 19 + epoch % 3


def begun(per_step: int) -> StepMap:
    return StepMap((Segment(0, 0, 0, per_step),), sizes)


def walked(step_map: StepMap, steps: int) -> list[list[tuple[int, int]]]:
    """The (epoch, micro-batch) of each optimizer step, counted one by one."""
    walk: list[list[tuple[int, int]]] = []
    epoch = place = 0
    for step in range(steps):
        per_step = [segment.per_step for segment in step_map.segments if segment.step <= step][-1]
        end = min(place + per_step, sizes(epoch))
        walk.append([(epoch, i) for i in range(place, end)])
        epoch, place = (epoch + 1, 0) if end == sizes(epoch) else (epoch, end)
    return walk


@pytest.mark.parametrize("seed", range(20))
def test_steps_of_any_sizes_take_every_micro_batch_once_and_in_order(seed: int) -> None:
    draw = random.Random(seed)
    step_map, step = begun(draw.randint(1, 8)), 0
    for _ in range(draw.randint(1, 5)):
        step += draw.randint(0, 12)
        step_map = step_map.resumed(step, draw.randint(1, 30))
    walk = walked(step_map, step + 40)
    for now, taken in enumerate(walk):
        span = step_map.at(now)
        assert span.epoch == taken[0][0]
        per_step = [segment.per_step for segment in step_map.segments if segment.step <= now][-1]
        assert taken[0][1] == span.skipped + (now - span.step) * per_step
        assert span.step <= now < span.step + span.steps
    for epoch in range(walk[-1][-1][0]):
        last = max(n for n, taken in enumerate(walk) if taken[0][0] == epoch)
        assert step_map.steps(epoch + 1) == last + 1
        assert step_map.of(epoch) == step_map.at(last)


def test_a_course_goes_on_unchanged_where_steps_keep_their_size() -> None:
    step_map = begun(6).resumed(5, 4)
    assert step_map.resumed(7, 4) == step_map
    assert step_map.resumed(5, 4).steps(9) == step_map.steps(9)


def test_a_run_that_goes_back_behind_a_change_forgets_it() -> None:
    assert begun(6).resumed(5, 4).resumed(3, 6) == begun(6)


@pytest.mark.parametrize(("step", "done", "epoch"), [(2, 12, 0), (3, 18, 0), (4, 0, 1)])
def test_a_change_is_said_with_its_place(step: int, done: int, epoch: int) -> None:
    assert describe_step_change(begun(6), step) == []
    assert describe_step_change(begun(6).resumed(step, 6), step) == []
    assert describe_step_change(begun(6).resumed(step, 4), step) == [
        f"a step is of 4 micro-batches, was of 6: from micro-batch {done} of epoch {epoch} on"
    ]
