"""The pages of ``--help`` and ``--help_all``: one line for each setting, with its default."""

import argparse
import re
from typing import Any

from jsonargparse import ArgumentParser

from lit.messages import tr, tr_mark
from lit.settings.help_texts import TEXTS
from lit.settings.language import ABOUT, FLAG
from lit.settings.trainer_settings import UNUSED

FLAGS = {"-h": False, "--help": False, "--help_all": True}
"""The flags that print a page, and whether it has every setting."""
REQUIRED = ("model.base", "data.path")
USUAL = (
    *("config", "output_dir", "ckpt_path", "overwrite", "seed_everything"),
    *("model.lr", "model.lora.r", "model.lora.lora_alpha", "model.lora.lora_dropout"),
    *("model.lora.target_modules", "model.lora.variant", "model.quantize", "model.scheduler"),
    *("model.warmup", "model.gradient_checkpointing", "data.val_path", "data.val_fraction"),
    *("data.val_every_n_steps", "data.columns", "data.template", "data.max_length"),
    "data.batch_size",
    *("trainer.max_epochs", "trainer.accumulate_grad_batches", "trainer.precision"),
    *("trainer.accelerator", "trainer.devices", "early_stopping.patience"),
)
"""The settings of ``--help`` after the required ones."""
HIDDEN = {
    *(f"trainer.{name}" for name in UNUSED),
    *("trainer.limit_test_batches", "trainer.limit_predict_batches", "trainer.limit_val_batches"),
    *("trainer.fast_dev_run", "trainer.overfit_batches", "trainer.use_distributed_sampler"),
    *("trainer.reload_dataloaders_every_n_epochs", "trainer.enable_model_summary"),
    *("trainer.sync_batchnorm", "trainer.inference_mode", "trainer.enable_autolog_hparams"),
    *("checkpoint.dirpath", "checkpoint.auto_insert_metric_name", "checkpoint.monitor"),
    *("checkpoint.mode", "checkpoint.enable_version_counter", "checkpoint.save_weights_only"),
}
"""Settings that a run refuses, does not use, or needs as they are."""
TRAIN = tr_mark("Train a LoRA adapter.")
MAX_DEFAULT = 22


def asked_page(args: list[str]) -> bool | None:
    """Return whether a command line asks for all settings; None if it asks for no help."""
    return next((FLAGS[arg] for arg in args if arg in FLAGS), None)


def help_page(parser: ArgumentParser, every: bool) -> str:
    """Return the page.

    Args:
        parser: The parser of the settings.
        every: Whether to list every setting that can be set, or only the usual ones.
    """
    actions = {action.dest: action for action in parser._actions}
    known = {*parser.get_defaults().keys()}
    names = [name for name in actions if name in known or name == "config"]
    listed = [name for name in names if name not in HIDDEN] if every else USUAL
    usage = tr("--model.base NAME --data.path FILE [--config FILE] [--SETTING VALUE]")
    lines = [
        tr("usage: {program} {arguments}", program=parser.prog, arguments=usage),
        "",
        " ".join(
            [
                tr(parser.description or ""),
                tr("Settings can also stand in a YAML file, given with --config."),
            ]
        ),
        "",
        tr("required"),
        *(_line(actions[name]) for name in REQUIRED),
        "",
        tr("all other settings, with their defaults")
        if every
        else tr("usual settings, with defaults"),
        *(_line(actions[name]) for name in listed if name not in REQUIRED),
        f"  {FLAG:<42} {tr(ABOUT)}",
    ]
    if not every:
        lines += [
            "",
            tr("--help_all lists every setting; --print_config prints a config file."),
        ]
    return "\n".join(lines)


def _line(action: argparse.Action) -> str:
    setting = f"--{action.dest}"
    if action.dest not in (*REQUIRED, "config"):
        setting += f" {_default(action.default)}"
    text = tr(TEXTS.get(action.dest) or _first_sentence(action.help or ""))
    return f"  {setting:<42} {text}".rstrip()


def _default(value: Any) -> str:
    if value is None:
        return "null"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= MAX_DEFAULT else f"({len(value)} {type(value).__name__} items)"


def _first_sentence(text: str) -> str:
    """Return the first sentence of a docstring's entry, without marks of code."""
    text = " ".join(text.replace("``", "").split())
    text = re.split(r"(?<=[\w)])[.;] |\.$", text)[0]
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]
