"""What a search varies: the default range, and a file of a person."""

from pathlib import Path

import pytest

from lit.searching.space import KINDS, Dimension, default_space
from lit.searching.space_file import read_space
from lora.config import ConfigError

OWN = {
    "model.lr": 2e-4,
    "model.lora.r": 8,
    "model.lora.lora_alpha": 16.0,
    "model.lora.target_modules": "projections",
    "model.warmup": 0.03,
    "model.lora.lora_dropout": 0.0,
    "model.scheduler": "cosine",
    "data.batch_size": 4,
    "model.weight_decay": 0.0,
    "model.optimizer": "adamw",
    "model.lora.use_rslora": False,
}


def read(tmp_path: Path, text: str, adapter: str | None = None):
    path = tmp_path / "space.yaml"
    path.write_text(text, "utf-8")
    return read_space(path, OWN, list(OWN), adapter)


def test_the_default_range_is_around_the_configs_own_learning_rate() -> None:
    lr, r, targets = default_space(OWN, None).dimensions
    assert (lr.low, lr.high, lr.log) == (2e-5, 2e-3, True)
    assert r.choices == (4, 8, 16, 32)
    assert targets.choices == ("attention", "projections")
    named = default_space(OWN | {"model.lora.target_modules": ["q_proj"]}, None).dimensions[2]
    assert named.choices == ("attention", "all-linear")


def test_a_run_that_goes_on_from_an_adapter_varies_the_learning_rate_alone() -> None:
    assert [x.name for x in default_space(OWN, "runs/first/adapter").dimensions] == ["model.lr"]


@pytest.mark.parametrize(("r", "alpha"), [(4, 8), (8, 16), (32, 64), (3, 6), (1, 2)])
def test_lora_alpha_follows_r_unless_it_is_searched_itself(r: int, alpha: float) -> None:
    space = default_space(OWN, None)
    assert space.settings({"model.lora.r": r})["model.lora.lora_alpha"] == alpha
    own = space.settings({"model.lora.r": r, "model.lora.lora_alpha": 5})
    assert own["model.lora.lora_alpha"] == 5


@pytest.mark.parametrize(
    "text",
    [
        "model.lr: {low: 1e-5, high: 1e-2, log: true}\nmodel.lora.r: [4, 8]\n",
        "model:\n  lr: {low: 1e-5, high: 1e-2, log: true}\n  lora:\n    r: [4, 8]\n",
        "model.lr:\n  low: 0.00001\n  high: 0.01\n  log: yes\nmodel:\n  lora.r: [4, 8, 4]\n",
    ],
)
def test_keys_may_be_dotted_or_nested_and_numbers_written_in_any_way(
    text: str, tmp_path: Path
) -> None:
    assert read(tmp_path, text).dimensions == (
        Dimension("model.lr", low=1e-5, high=1e-2, log=True),
        Dimension("model.lora.r", (4, 8)),
    )


def test_a_single_value_is_taken_by_every_trial(tmp_path: Path) -> None:
    space = read(tmp_path, "model.warmup: 0.1\nmodel.lr: [1e-4, 3e-4]")
    assert space.dimensions[0].choices == (0.1,)
    assert space.settings({"model.warmup": 0.1})["model.warmup"] == 0.1


REFUSED = {
    "model.lora.rr: [4]": "yaml:1: there is no setting model.lora.rr; did you mean model.lora.r",
    "\nmodel.lr: [1e-4]\nlearning_rat: [1]": r"space.yaml:3: there is no setting learning_rat",
    "model.scheduler: [cosine]": "space.yaml:1: model.scheduler cannot be searched",
    "data.batch_size: [2, 4]": "space.yaml:1: data.batch_size cannot be searched.*model.lr, ",
    "model.lr: {low: 1e-5, hihg: 1e-2}": "space.yaml:1: .*did you mean high.*low: 1e-5",
    "model.lr: {low: 1e-2, high: 1e-5}": "space.yaml:1: .*low must be below high",
    "model.lr: {low: 0, high: 1e-2, log: true}": "above 0 if log is true",
    "model.lr: {low: 1e-5, high: .inf}": "low must be below high",
    "model.lr: {low: 1e-5, high: 2}": r"space.yaml:1: model.lr has 2.0; it must be in \(0, 1\)",
    "\n\nmodel.lora.r: [4, many]": "space.yaml:3: model.lora.r has the choice 'many'.* str.* int",
    "model.lora.r: [0]": "space.yaml:1: `r` is 0; it must be 1 or more",
    "model.lora.r: []": "model.lora.r has no choices",
    "model.lora.r: [true]": "is of type bool; it must be int",
    "model.lora.lora_dropout: {low: 0, high: 1}": "`lora_dropout` is 1.0",
    "model.lora.target_modules: {low: 1, high: 2}": "is no number: give a list",
    "model.lora.use_rslora: [1]": "is of type int; it must be bool",
    "model.weight_decay: [-1]": "model.weight_decay has -1; it must be 0 or more",
    "model.lr: [1e-4]\nmodel.lr: [1e-3]": "space.yaml:2: model.lr is set twice",
    "- model.lr": "must hold settings",
    "model: {}": "names no setting to search",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_cannot_be_searched_is_refused_with_its_line(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=REFUSED[text]):
        read(tmp_path, text)


def test_what_an_adapter_decides_is_not_searched(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model.lora.r is decided by model.adapter runs/first"):
        read(tmp_path, "model.lora.r: [4]", adapter="runs/first")


@pytest.mark.parametrize("name", KINDS)
def test_every_setting_of_the_table_exists(name: str) -> None:
    from lit.settings.arguments import parse

    needed = ["--model.base", "m", "--data.path", "rows.jsonl", "--trainer.accelerator", "cpu"]
    assert name in parse(needed).settings()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_number_of_a_range_is_short_and_within_it(share: float) -> None:
    for dimension in (
        Dimension("model.lr", low=1e-5, high=1e-2, log=True),
        Dimension("model.lora.lora_dropout", low=0.0, high=0.1),
        Dimension("model.lora.r", low=4, high=64),
    ):
        value = dimension.at(share)
        assert dimension.low <= value <= dimension.high
        assert len(f"{value:g}") <= 9
        assert isinstance(value, int) == dimension.whole
