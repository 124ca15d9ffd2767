"""A key that does not exist: the setting that is proposed instead."""

import pytest

from lit.settings.arguments import parse
from lit.settings.keys import nearest
from lit.settings.other_names import OTHER_NAMES, SETTINGS
from lora.config import ConfigError

MEANT = {
    "lr_rate": "model.lr",
    "learning_rate": "model.lr",
    "learning-rate": "model.lr",
    "model.learning_rate": "model.lr",
    "train.learning_rte": "model.lr",
    "batchsize": "data.batch_size",
    "batch_sise": "data.batch_size",
    "model.batch_size": "data.batch_size",
    "per_device_train_batch_size": "data.batch_size",
    "model.lora.rank": "model.lora.r",
    "lora.r": "model.lora.r",
    "lora_r": "model.lora.r",
    "model.lora_alpha": "model.lora.lora_alpha",
    "lora": "model.lora",
    "num_train_epochs": "trainer.max_epochs",
    "trainer.epochs": "trainer.max_epochs",
    "data.val_check_interval": "trainer.val_check_interval",
    "modle": "model",
    "modle.base": "model.base",
    "seed": "seed_everything",
}


@pytest.fixture(scope="module")
def known() -> list[str]:
    """The names of all settings."""
    required = ["--model.base", "m", "--data.path", "rows.jsonl", "--trainer.accelerator", "cpu"]
    return [*parse(required).parser.get_defaults().keys()]


@pytest.mark.parametrize("key", MEANT)
def test_a_key_that_does_not_exist_proposes_the_setting_that_is_meant(
    key: str, known: list[str]
) -> None:
    assert nearest(key, known) == f"; did you mean {MEANT[key]}?"


def test_every_other_name_stands_for_one_setting_that_exists(known: list[str]) -> None:
    assert set(OTHER_NAMES) <= set(known)
    assert len(SETTINGS) == sum(map(len, OTHER_NAMES.values()))
    assert not set(SETTINGS) & set(known)


def test_a_key_like_no_setting_proposes_nothing(known: list[str]) -> None:
    assert nearest("xyzzy", known) == ""


def test_the_command_line_proposes_for_a_flag_with_hyphens() -> None:
    with pytest.raises(ConfigError, match=r"learning-rate; did you mean model\.lr\?"):
        parse(["--learning-rate", "1", "--model.base", "m", "--data.path", "p"])
