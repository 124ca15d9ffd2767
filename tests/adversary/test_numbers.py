"""B4, B6, B10: no NaN passes in silence, answers mean what the flags say, seeds are exact."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from data.seeds import mix_seed
from data.types import IGNORE, Example
from lit.answering.context import context_length
from lit.answering.generation import answers
from lit.answering.sampling import NotFiniteError, RowSampler, Sampling, nucleus
from lit.compare import main as compare
from lit.comparison.result import Comparison, LossResult, is_valid, verdict
from lit.exporting.probe import relative_difference
from lit.measures.losses import Losses, measuring_losses
from lit.model.tuned import load
from lit.run.metrics_file import perplexity, relative_change
from lit.settings.defaults import early_stopping
from lora.config import ConfigError, LoRAConfig
from lora.dropout import dropout_mask
from lora.injection import adapters_disabled, inject, lora_layers
from lora.storage.adapter import load_adapter, save_adapter
from lora.storage.peft_format import AdapterError
from tests.conftest import make_model
from tests.start_checks import check_loss

NAN, INF = math.nan, math.inf
GOOD = LossResult(2.0, 1.0, -1.2, -0.8, rows=9, tokens=90, improved_rows=9)


def tuned_model(**changes: Any) -> PreTrainedModel:
    """A tiny model with an adapter that changes its answers."""
    model = make_model()
    inject(model, LoRAConfig(**{"r": 4} | changes))
    for _, layer in lora_layers(model):
        torch.nn.init.normal_(layer.lora_B, std=0.5)
    return model.eval()


@pytest.fixture
def adapter(tiny_folder: Path, tmp_path: Path, tokenizer: Any) -> Path:
    """An adapter's folder, without a run."""
    folder = save_adapter(tuned_model(), tmp_path / "adapter", str(tiny_folder))
    tokenizer.save_pretrained(folder)
    return folder


# --- B4: a verdict needs finite numbers ---------------------------------------------------------

BROKEN_LOSSES = {
    "B4: the base is NaN": {"base": NAN},
    "B4: the tuned loss is infinite": {"tuned": INF},
    "B4: an end of the interval is NaN": {"ci_low": NAN},
    "B4: one row is NaN": {"not_finite": {"base": [], "tuned": [3]}},
}


@pytest.mark.parametrize("name", BROKEN_LOSSES)
@pytest.mark.parametrize("field", ["loss", "forgetting"])
def test_a_number_that_is_not_finite_is_the_verdict(name: str, field: str) -> None:
    broken = LossResult(**vars(GOOD) | BROKEN_LOSSES[name])
    losses: dict[str, Any] = {"loss": GOOD, "forgetting": GOOD} | {field: broken}
    result = Comparison("", "", "", 0, "", {}, measures=[], answers=[], **losses)
    assert not is_valid(result)
    assert verdict(result).sentence.startswith("No verdict: the loss of the ")
    assert ("rows 3" in verdict(result).sentence) == ("one row" in name)


def test_rows_that_are_not_finite_are_numbered_and_reach_the_interval() -> None:
    base = np.array([1.0, NAN, 3.0, INF] + [1.0] * 8)
    losses = Losses(base, np.ones(12), np.full(12, 2))
    assert losses.not_finite("base") == [2, 4]
    assert losses.not_finite("tuned") == []
    interval = losses.interval()
    assert interval is not None
    assert not math.isfinite(interval.low)


def test_a_comparison_with_a_broken_base_reports_it_and_exits_with_1(
    adapter: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    base = shutil.copytree(tiny_folder, tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"][3] = NAN
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "How?", "response": "So."}\n' * 3, "utf-8")
    command = ["--adapter", str(adapter), "--base", str(base), "--data", str(rows)]
    assert compare([*command, "--max_new_tokens", "4"]) == 1
    assert "No verdict" in capsys.readouterr().out
    text = (tmp_path / "comparison" / "report.json").read_text("utf-8")
    # Plain JSON has no NaN.
    report = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert report["loss"]["base"] is None
    assert report["loss"]["not_finite"] == {"base": [1, 2, 3], "tuned": [1, 2, 3]}
    assert "NaN" in report["no_answers"]
    assert "3 of 3 rows under the base model" in (tmp_path / "comparison" / "report.md").read_text(
        "utf-8"
    )


def check_loss_of_nan() -> None:
    model = make_model()
    model.lm_head.weight.data[0] = NAN
    from data.planning.batch import collate

    check_loss(model, collate([Example([3, 4, 5, 6], [IGNORE, 4, 5, 6])]))


REFUSED: dict[str, Callable[[], object]] = {
    "B4: check_loss": check_loss_of_nan,
    "B4: min_delta of early stopping": lambda: early_stopping(3, NAN),
    "B4: lora_alpha is NaN": lambda: LoRAConfig(lora_alpha=NAN),
    "B4: lora_alpha is 10**400": lambda: LoRAConfig(lora_alpha=10**400),
    "B4: loraplus_lr_ratio is 10**400": lambda: LoRAConfig(loraplus_lr_ratio=10**400),
    "B4: loraplus_lr_ratio is NaN": lambda: LoRAConfig(loraplus_lr_ratio=NAN),
    "B4: neftune_alpha is 10**400": lambda: LoRAConfig(neftune_alpha=10**400),
    "B4: lora_dropout is NaN": lambda: LoRAConfig(lora_dropout=NAN),
    "B4: alpha_pattern is 10**400": lambda: LoRAConfig(alpha_pattern={"q_proj": 10**400}),
    "B4: r is 10**400 under rslora": lambda: LoRAConfig(r=10**400, use_rslora=True).scale,
    "B6: temperature is NaN": lambda: Sampling(temperature=NAN),
    "B6: temperature is infinite": lambda: Sampling(temperature=INF),
    "B6: top_p is NaN": lambda: Sampling(top_p=NAN),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_number_that_is_not_finite_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        REFUSED[name]()


def test_derived_numbers_of_odd_losses_neither_fail_nor_lie() -> None:
    assert math.isnan(perplexity(NAN))
    assert perplexity(1e4) == INF
    assert math.isnan(relative_change(0.0, 1.0))
    assert math.isnan(relative_difference(torch.tensor([NAN]), torch.ones(1)))
    stopping = early_stopping(2)
    assert stopping is not None
    assert not stopping.check_finite


ALPHA = "adapter_config.json"
HUGE: dict[str, Callable[[dict[str, Tensor], dict[str, Any]], object]] = {
    "B4: B of 1e25": lambda weights, _: _first(weights, "lora_B").fill_(1e25),
    "B4: A of 3e38": lambda weights, _: _first(weights, "lora_A").fill_(3e38),
    "B4: alpha of 1e25": lambda _, config: config.update(lora_alpha=1e25),
    "B4: alpha of 1e308": lambda _, config: config.update(lora_alpha=1e308),
    "B4: alpha of 10**400": lambda _, config: config.update(lora_alpha=10**400),
    "B4: alpha pattern of 1e30": lambda _, config: config.update(alpha_pattern={"q_proj": 1e30}),
    "B4: dropout of 10**400": lambda _, config: config.update(lora_dropout=10**400),
}


def _first(weights: dict[str, Tensor], name: str) -> Tensor:
    return next(value for key, value in weights.items() if name in key)


@pytest.mark.parametrize("name", HUGE)
def test_a_huge_adapter_is_refused_and_leaves_the_model_alone(name: str, adapter: Path) -> None:
    weights = load_file(adapter / "adapter_model.safetensors")
    config = json.loads((adapter / "adapter_config.json").read_text())
    HUGE[name](weights, config)
    save_file(weights, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    model = make_model()
    with pytest.raises(AdapterError, match=r"times as much is refused|lora_alpha|lora_dropout"):
        load_adapter(model, adapter)
    assert not list(lora_layers(model))


@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize("variant", ["lora", "dora", "pissa"])
def test_a_strong_adapter_still_loads(variant: str, scale: float, tmp_path: Path) -> None:
    model = tuned_model(variant=variant)
    for _, layer in lora_layers(model):
        layer.lora_B.data.mul_(scale)
    save_adapter(model, tmp_path, "some/model")
    load_adapter(make_model(), tmp_path)


# --- B6: generation means what it says ----------------------------------------------------------

PROMPTS = [[5, 6, 7], [30, 31, 32, 33, 34, 35, 36, 37, 38], [100], [5, 6, 7, 8, 8, 8, 8]]
ODD_DEFAULTS: dict[str, Any] = {
    "repetition_penalty": 5.0,
    "num_beams": 3,
    "no_repeat_ngram_size": 1,
    "min_new_tokens": 12,
    "bad_words_ids": [[n] for n in range(40, 200)],
    "suppress_tokens": list(range(3, 150)),
    "begin_suppress_tokens": list(range(3, 200)),
    "forced_eos_token_id": 77,
    "forced_bos_token_id": 78,
    "sequence_bias": [[[n], 9.0] for n in range(3, 50)],
    "do_sample": True,
    "temperature": 9.0,
    "top_k": 2,
    "top_p": 0.1,
    "min_p": 0.9,
    "typical_p": 0.2,
    "exponential_decay_length_penalty": [1, 9.0],
    "length_penalty": 5.0,
    "max_length": 5,
    "max_time": 1e-9,
    "guidance_scale": 3.0,
    "renormalize_logits": True,
    "num_return_sequences": 1,
    "stop_strings": ["e", "a"],
    "cache_implementation": "static",
    "prompt_lookup_num_tokens": 3,
    "output_scores": True,
    "return_dict_in_generate": True,
    "my_own_field": 3,
}
"""Values of a base's generation_config.json, each of which would change or break an answer."""


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("name", ODD_DEFAULTS)
def test_no_field_of_the_bases_generation_config_changes_an_answer(
    name: str, temperature: float, tokenizer: Any
) -> None:
    model, sampling = make_model(), Sampling(3, temperature, 0.9, max_new_tokens=10)
    plain = dict(answers(model, tokenizer, PROMPTS, sampling))
    odd = GenerationConfig()
    setattr(odd, name, ODD_DEFAULTS[name])
    model.generation_config = odd
    assert dict(answers(model, tokenizer, PROMPTS, sampling)) == plain
    # A merged model is saved with the config that its base came with.
    assert model.generation_config is odd


def test_a_generation_config_on_the_disk_changes_no_answer(
    tiny_folder: Path, tmp_path: Path, tokenizer: Any
) -> None:
    sampling = Sampling(max_new_tokens=10)
    folder = shutil.copytree(tiny_folder, tmp_path / "base")
    plain = dict(answers(load(None, str(tiny_folder))[0], tokenizer, PROMPTS, sampling))
    path = folder / "generation_config.json"
    config = json.loads(path.read_text())
    config |= {"repetition_penalty": 5.0, "num_beams": 3, "no_repeat_ngram_size": 1}
    path.write_text(json.dumps(config))
    model, _ = load(None, str(folder))
    assert model.generation_config.num_beams == 3
    assert dict(answers(model, tokenizer, PROMPTS, sampling)) == plain


def test_greedy_answers_equal_a_plain_loop_over_the_logits(tokenizer: Any) -> None:
    model = make_model()
    model.generation_config.repetition_penalty = 5.0
    results = dict(answers(model, tokenizer, PROMPTS, Sampling(max_new_tokens=8)))
    for index, prompt in enumerate(PROMPTS):
        ids = list(prompt)
        for _ in range(results[index].tokens):
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        text = tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True).strip()
        assert results[index].text == text


@pytest.mark.parametrize(("temperature", "top_p"), [(0.0, 1.0), (0.7, 1.0), (1.5, 1.0), (0.7, 0.9)])
@pytest.mark.parametrize("batch_size", [2, 4])
def test_a_question_gets_the_same_answer_alone_and_in_any_batch(
    batch_size: int, temperature: float, top_p: float, tokenizer: Any
) -> None:
    model, sampling = make_model(), Sampling(7, temperature, top_p, max_new_tokens=12)
    alone = [dict(answers(model, tokenizer, [prompt], sampling))[0] for prompt in PROMPTS]
    for order in ([0, 1, 2, 3], [3, 0, 2, 1], [1, 1, 0, 3, 2]):
        batched = dict(answers(model, tokenizer, [PROMPTS[i] for i in order], sampling, batch_size))
        assert [batched[place] for place in range(len(order))] == [alone[i] for i in order]


def test_an_answer_neither_reads_nor_moves_torchs_own_generator(tokenizer: Any) -> None:
    model, sampling = make_model(), Sampling(7, 1.0, max_new_tokens=6)
    texts = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        texts.append(dict(answers(model, tokenizer, PROMPTS, sampling)))
        assert torch.equal(torch.get_rng_state(), before)
    assert texts[0] == texts[1]


def test_tokens_are_drawn_with_the_probabilities_of_the_flags() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -9.0])
    temperature, top_p, count = 1.5, 0.9, 20_000
    sampler = RowSampler(temperature, top_p, [torch.Generator().manual_seed(5)])
    drawn = torch.cat(
        [sampler(torch.empty(0), logits[None]).argmax(-1) for _ in range(count)]
    ).bincount(minlength=5)
    probabilities = (logits / temperature).softmax(-1)
    kept = torch.tensor([True, True, True, False, False])
    assert probabilities[:2].sum() < top_p <= probabilities[:3].sum()
    expected = probabilities.where(kept, torch.zeros(())) / probabilities[kept].sum()
    error = (expected * (1 - expected) / count).sqrt()
    assert ((drawn / count - expected).abs() <= 4 * error).all()


@pytest.mark.parametrize("top_p", [1e-9, 0.3, 0.99])
def test_the_nucleus_always_keeps_the_most_likely_token(top_p: float) -> None:
    logits = torch.tensor([[1.0, 5.0, 1.0], [0.0, 0.0, 0.0]])
    kept = nucleus(logits, top_p).isfinite()
    assert kept[0, 1]
    assert kept.any(-1).all()


def test_a_model_that_computes_nan_gives_no_answer(tokenizer: Any) -> None:
    model = make_model()
    model.model.norm.weight.data[0] = NAN
    for temperature in (0.0, 1.0):
        with pytest.raises(NotFiniteError, match="NaN"):
            dict(answers(model, tokenizer, PROMPTS, Sampling(3, temperature, max_new_tokens=4)))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_an_answer_beyond_the_context_is_an_error_with_both_numbers(
    family: str, tokenizer: Any
) -> None:
    model = make_model(family, **({"n_positions": 64} if family == "gpt2" else {}))
    limit = context_length(model)
    assert limit is not None
    fits = [[5] * (limit - 4)]
    assert len(dict(answers(model, tokenizer, fits, Sampling(max_new_tokens=4)))) == 1
    expected = f"has {limit - 4} tokens .*max_new_tokens is 5, .* has {limit}: lower .* to 4"
    with pytest.raises(ConfigError, match=expected):
        dict(answers(model, tokenizer, fits, Sampling(max_new_tokens=5)))
    with pytest.raises(ConfigError, match="ask a shorter question"):
        dict(answers(model, tokenizer, [[5] * (limit + 9)], Sampling(max_new_tokens=5)))


# --- B10: seeds and threads ---------------------------------------------------------------------


def test_mixed_seeds_differ_and_suit_every_generator() -> None:
    numbers = [-(2**70), -2, -1, 0, 1, 2, 2**32 - 1, 2**61 - 2, 2**61 - 1, 2**63, 2**64, 10**400]
    seeds = {mix_seed(a, b) for a in numbers for b in numbers}
    assert len(seeds) == len(numbers) ** 2
    for seed in seeds:
        torch.Generator().manual_seed(seed)
    assert mix_seed(1, 23) != mix_seed(12, 3)


def test_threads_that_disable_adapters_do_not_disturb_others() -> None:
    model, ids = tuned_model(), torch.arange(3, 20)[None]
    with torch.no_grad():
        tuned = model(ids).logits
        with adapters_disabled(model):
            base = model(ids).logits
    assert not torch.equal(base, tuned)
    barrier, results = Barrier(2, timeout=30), {}

    def ask_base() -> None:
        with torch.no_grad(), adapters_disabled(model):
            barrier.wait()
            results["base"] = model(ids).logits
            barrier.wait()

    def ask_tuned() -> None:
        with torch.no_grad():
            barrier.wait()
            results["tuned"] = model(ids).logits
            barrier.wait()

    threads = [Thread(target=ask) for ask in (ask_base, ask_tuned)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(results["base"], base)
    assert torch.equal(results["tuned"], tuned)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, tuned)


def test_blocks_that_overlap_leave_every_adapter_enabled() -> None:
    first, second = tuned_model(), tuned_model()
    one, two = adapters_disabled(first), adapters_disabled(second)
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    assert all(layer.enabled for _, layer in lora_layers(first))
    assert not any(layer.enabled for _, layer in lora_layers(second))
    two.__exit__(None, None, None)
    assert all(layer.enabled for _, layer in lora_layers(second))


def test_a_dropout_mask_depends_on_its_seed_alone_in_every_thread() -> None:
    like, masks = torch.empty(0), []

    def draw() -> None:
        masks.append(dropout_mask(torch.Size((64, 64)), 0.1, 11, like)[0])

    threads = [Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(mask, masks[0]) for mask in masks)


def test_losses_of_a_broken_row_do_not_reach_other_rows() -> None:
    model = tuned_model()
    model.get_input_embeddings().weight.data[9] = NAN
    rows = [[5, 6, 7, 8], [5, 9, 7, 8], [8, 7, 6, 5]]
    examples = [Example(ids, [IGNORE, *ids[1:]]) for ids in rows]
    with measuring_losses(model) as measure:
        losses = measure(examples, lambda rows: None)
    assert losses.not_finite("base") == losses.not_finite("tuned") == [2]


def test_the_plain_model_and_the_loaded_one_agree(tiny_folder: Path) -> None:
    plain = AutoModelForCausalLM.from_pretrained(tiny_folder)
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        assert torch.equal(plain(ids).logits, load(None, str(tiny_folder))[0](ids).logits)
