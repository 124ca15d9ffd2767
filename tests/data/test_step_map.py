"""Where a run stands in its epochs, however its steps change in size."""

import random

import pytest

from data.step_map import Course, Leg, said_of


def sizes(epoch: int) -> int:
    """Micro-batches of an epoch, which max_tokens lets differ."""
    return 19 + epoch % 3


def begun(per_step: int) -> Course:
    return Course((Leg(0, 0, 0, per_step),), sizes)


def walked(course: Course, steps: int) -> list[list[tuple[int, int]]]:
    """The (epoch, micro-batch) of each optimizer step, counted one by one."""
    walk: list[list[tuple[int, int]]] = []
    epoch = place = 0
    for step in range(steps):
        per_step = [leg.per_step for leg in course.legs if leg.step <= step][-1]
        end = min(place + per_step, sizes(epoch))
        walk.append([(epoch, i) for i in range(place, end)])
        epoch, place = (epoch + 1, 0) if end == sizes(epoch) else (epoch, end)
    return walk


@pytest.mark.parametrize("seed", range(20))
def test_steps_of_any_sizes_take_every_micro_batch_once_and_in_order(seed: int) -> None:
    draw = random.Random(seed)
    course, step = begun(draw.randint(1, 8)), 0
    for _ in range(draw.randint(1, 5)):
        step += draw.randint(0, 12)
        course = course.resumed(step, draw.randint(1, 30))
    walk = walked(course, step + 40)
    for now, taken in enumerate(walk):
        span = course.at(now)
        assert span.epoch == taken[0][0]
        per_step = [leg.per_step for leg in course.legs if leg.step <= now][-1]
        assert taken[0][1] == span.skipped + (now - span.step) * per_step
        assert span.step <= now < span.step + span.steps
    for epoch in range(walk[-1][-1][0]):
        last = max(n for n, taken in enumerate(walk) if taken[0][0] == epoch)
        assert course.steps(epoch + 1) == last + 1
        assert course.of(epoch) == course.at(last)


def test_a_course_goes_on_unchanged_where_steps_keep_their_size() -> None:
    course = begun(6).resumed(5, 4)
    assert course.resumed(7, 4) == course
    assert course.resumed(5, 4).steps(9) == course.steps(9)


def test_a_run_that_goes_back_behind_a_change_forgets_it() -> None:
    assert begun(6).resumed(5, 4).resumed(3, 6) == begun(6)


@pytest.mark.parametrize(("step", "done", "epoch"), [(2, 12, 0), (3, 18, 0), (4, 0, 1)])
def test_a_change_is_said_with_its_place(step: int, done: int, epoch: int) -> None:
    assert said_of(begun(6), step) == []
    assert said_of(begun(6).resumed(step, 6), step) == []
    assert said_of(begun(6).resumed(step, 4), step) == [
        f"a step is of 4 micro-batches, was of 6: from micro-batch {done} of epoch {epoch} on"
    ]
