"""Time answers in a batch whose places are filled again, and in groups that wait for their longest.

    OMP_NUM_THREADS=2 python -m benchmarks.answering --adapter D [--rounds 3] [--sizes 8 16]

Answers the held-out questions of the adapter's run with base and tuned model, greedily, each way in
turns, and prints a Markdown table: medians of the seconds over the rounds. Answers that differ
between the ways are counted: a batch rounds otherwise, and a near tie then has another winner.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedModel

from lit.answering.batching import pad_left, without_defaults
from lit.answering.filling import can_fill, fill
from lit.answering.generation import pad_token, stop_tokens, use_model
from lit.answering.sampling import Sampling, choosing
from lit.comparison.questions import encode_prompt, read_questions
from lit.fast_layers.library import use_fast_answers
from lit.measures.losses import MODELS
from lit.measures.sample import fair_order
from lit.model.base import quiet
from lit.model.tuned import load
from lit.run.folder import RunFolder

Way = Callable[[PreTrainedModel, list[list[int]], Sampling, list[int], int, int], list[list[int]]]


def filled(
    model: PreTrainedModel,
    prompts: list[list[int]],
    sampling: Sampling,
    stops: list[int],
    pad: int,
    size: int,
) -> list[list[int]]:
    """Return the tokens of each answer; a question takes the place of each answer that ends."""
    found = dict(fill(model, enumerate(prompts), sampling, stops, pad, size))
    return [found[index] for index in range(len(prompts))]


@torch.inference_mode()
def in_groups(
    model: PreTrainedModel,
    prompts: list[list[int]],
    sampling: Sampling,
    stops: list[int],
    pad: int,
    size: int,
) -> list[list[int]]:
    """Return the tokens of each answer; a group is generated until its longest answer ends."""
    config = GenerationConfig(
        max_new_tokens=sampling.max_new_tokens, eos_token_id=stops, pad_token_id=pad
    )
    found = []
    for at in range(0, len(prompts), size):
        ids, mask = pad_left(prompts[at : at + size], pad, model.device)
        output = without_defaults(model).generate(  # type: ignore[operator]
            ids,
            attention_mask=mask,
            generation_config=config,
            logits_processor=choosing(sampling, []),
        )
        found += [until_end(row, stops) for row in output[:, ids.shape[1] :].tolist()]
    return found


def until_end(tokens: list[int], stops: Sequence[int]) -> list[int]:
    """Return tokens up to the first stop token."""
    end = next((i for i, token in enumerate(tokens, 1) if token in stops), len(tokens))
    return tokens[:end]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--questions", type=int, default=34)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8])
    options = parser.parse_args()
    quiet()
    model, tokenizer = load(options.adapter)
    use_fast_answers(model)
    rows = read_questions(RunFolder(options.adapter.absolute().parent).validation)
    order = fair_order(len(rows))[: options.questions]
    prompts = [encode_prompt(rows[row], tokenizer) for row in order]
    stops, pad = stop_tokens(model, tokenizer), pad_token(model, tokenizer)
    sampling = Sampling(max_new_tokens=160)  # that of lit.compare
    assert can_fill(model, pad)
    ways: dict[str, Way] = {"groups": in_groups, "filled": filled}
    print(f"{len(prompts)} questions, {platform.machine()}, {torch.get_num_threads()} threads\n")
    print(
        "| model | batch | way | s | processor s | groups / this | tokens | at the limit | differ |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for which in MODELS:
        expected: list[list[int]] = []
        for size in options.sizes:
            walls: dict[str, list[float]] = {way: [] for way in ways}
            busy: dict[str, list[float]] = {way: [] for way in ways}
            found: dict[str, list[list[int]]] = {}
            for number in range(options.rounds):
                for way in sorted(ways, reverse=bool(number % 2)):
                    wall, processor = time.perf_counter(), time.process_time()
                    with use_model(model, which):
                        found[way] = ways[way](model, prompts, sampling, stops, pad, size)
                    walls[way].append(time.perf_counter() - wall)
                    busy[way].append(time.process_time() - processor)
            expected = expected or found["groups"]
            for way in ways:
                pairs = zip(busy["groups"], busy[way], strict=True)
                ratio = statistics.median(groups / this for groups, this in pairs)
                lengths = list(map(len, found[way]))
                other = sum(a != b for a, b in zip(expected, found[way], strict=True))
                print(
                    f"| {which} | {size} | {way} | {statistics.median(walls[way]):.1f} | "
                    f"{statistics.median(busy[way]):.1f} | {ratio:.2f} | {sum(lengths)} | "
                    f"{lengths.count(sampling.max_new_tokens)} | {other} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
