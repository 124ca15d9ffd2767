"""How a run encoded its rows and loaded its model, so that a comparison measures the same."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from data.templates.variables import Value, shown
from data.types import DataError
from lit.device.device import Traits
from lit.device.precision import PRECISIONS, check_precision, choose_precision
from lit.messages import tr, tr_later, tr_mark
from lit.model.tuned import NOT_QUANTIZED
from lit.run.folder import RunFolder
from lit.run.metrics_file import read_losses
from lora.config import ConfigError
from lora.storage.metadata import read_quantization

SHORT_PRECISIONS = {
    **dict.fromkeys(("None", "32"), "32-true"),
    "16": "16-mixed",
    "bf16": "bf16-mixed",
}
"""Other names of a precision that Lightning accepts."""
Variables = dict[str, Value]
MAX_CONFIG = 2**20
"""Bytes; the settings of a run are a few thousand."""


@dataclass(frozen=True)
class LoadSettings:
    """What a held-out loss depends on besides the weights and the rows.

    Args:
        precision: A key of ``lit.device.precision.PRECISIONS``.
        quantize: One of ``lora.base.QUANTIZATIONS``, or None.
        max_length: The most tokens of a row; None for no limit.
        truncation: What happens to a longer row.
        keeps_duplicates: Whether the run validated on rows that it also trained on.
    """

    precision: str = "32-true"
    quantize: str | None = None
    max_length: int | None = None
    truncation: str = "middle"
    keeps_duplicates: bool = False

    def changed(self, precision: str | None, quantize: str | None) -> "LoadSettings":
        """Return the settings with those that a person gave; None keeps a setting.

        Raises:
            ConfigError: The precision is unknown.
        """
        precision = self.precision if precision is None else precision
        if precision not in PRECISIONS:
            raise ConfigError(
                tr(
                    "--precision is {precision}; choose {precisions}",
                    precision=precision,
                    precisions=", ".join(PRECISIONS),
                )
            )
        if quantize is None:
            quantize = self.quantize
        return replace(
            self, precision=precision, quantize=None if quantize == NOT_QUANTIZED else quantize
        )

    def fitted_to(self, device: Traits, model_type: str) -> "LoadSettings":
        """Return settings with a precision that a device computes in: this one, if it does.

        Args:
            device: The device.
            model_type: The base's ``model_type``.
        """
        try:
            check_precision(self.precision, device, model_type)
            return self
        except ConfigError:  # ``differences`` says that the precision is another one
            chosen = choose_precision(device, model_type, bool(self.quantize))
            return replace(self, precision=chosen.value)

    def differences(self, run: "LoadSettings") -> list[str]:
        """Return a sentence for each setting of the model that differs from the run's."""
        pairs = {
            "precision": (run.precision, self.precision),
            "quantize": (run.quantize or NOT_QUANTIZED, self.quantize or NOT_QUANTIZED),
        }
        return [
            tr_later(
                "The run trained with {name} {trained}; this comparison uses {used}.",
                name=name,
                trained=trained,
                used=used,
            )
            for name, (trained, used) in pairs.items()
            if trained != used
        ]


def read_run_settings(run: RunFolder) -> LoadSettings | None:
    """Return the settings in a run's config.yaml, or None in a folder that holds no run.

    Raises:
        ConfigError: The file is not one that a run writes.
    """
    if not (run.config.is_file() and run.metrics.is_file()):
        return None
    if run.config.stat().st_size > MAX_CONFIG:
        raise ConfigError(tr("{config} is too large for the settings of a run", config=run.config))
    try:
        config = yaml.safe_load(run.config.read_text(encoding="utf-8"))
        model, data, trainer = (_mapping(config, name) for name in ("model", "data", "trainer"))
        precision = str(trainer.get("precision"))
        return LoadSettings(
            precision=SHORT_PRECISIONS.get(precision, precision),
            quantize=model.get("quantize"),
            max_length=data["max_length"],
            truncation=data["truncation"],
            keeps_duplicates=data.get("on_duplicate") == "keep",
        ).changed(None, None)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, TypeError, KeyError) as error:
        raise ConfigError(
            tr(
                "{config} does not hold the settings of a run ({type}), so it is unknown how "
                "the rows were measured: copy the adapter's folder elsewhere and give --data "
                "FILE",
                config=run.config,
                type=type(error).__name__,
            )
        ) from None


def find_rows(
    run: RunFolder, data: Path | None, needed: bool, settings: LoadSettings | None
) -> tuple[Path | None, str]:
    """Return the file of rows to measure, and a sentence about it for the report.

    Args:
        run: The run of the adapter.
        data: Rows that a person gave.
        needed: Whether there must be rows.
        settings: The run's, if they are known.

    Raises:
        DataError: There is none, and one is needed.
    """
    if data is not None:
        return data, tr_later(
            "Rows of {data}; this report cannot know if the adapter was trained on them.", data=data
        )
    if run.validation.is_file():
        if settings is not None and settings.keeps_duplicates:
            return run.validation, tr_later(
                "The run validated on these rows, and may have trained on some of them: its "
                "data.on_duplicate is keep."
            )
        return run.validation, tr_later(
            "The rows were held out by the run: it never trained on them."
        )
    if needed:
        raise DataError(
            tr(
                "{validation} does not exist, so there are no held-out rows: add --data FILE or "
                "--questions FILE",
                validation=run.validation,
            )
        )
    return None, tr_later("Only questions were given.")


def changed_inputs(
    own_base: object, base: str | None, template: str, own: Variables, values: Variables
) -> list[str]:
    """Return a sentence for the base, the template and its variables where they are not the run's.

    Args:
        own_base, own: The run's base, and the values of its template's variables.
        base, template, values: Those of the comparison; ``base`` is None for the run's.
    """
    notes = []
    if base is not None and base != own_base:
        text = tr_mark("The run trained on {run}; this comparison uses {used}.")
        notes.append(tr_later(text, run=own_base, used=base))
    if template != "auto":
        text = tr_mark("The run trained with its own template; this comparison uses {used}.")
        notes.append(tr_later(text, used=template))
    if template != "none" and own != values:
        text = tr_mark("The run trained with template_kwargs {run}; this comparison uses {used}.")
        notes.append(tr_later(text, run=shown(own), used=shown(values)))
    return notes


def unknown_settings(adapter: Path, device: Traits, model_type: str) -> LoadSettings:
    """Return settings for an adapter without its run: the device's precision, rows uncut.

    Args:
        adapter: The adapter's folder, which remembers how its base was quantized.
        device: The device.
        model_type: The base's ``model_type``.
    """
    quantize = read_quantization(adapter)
    return LoadSettings(choose_precision(device, model_type, bool(quantize)).value, quantize)


def _mapping(config: Any, name: str) -> dict[str, Any]:
    if not isinstance(config[name], dict):
        raise TypeError
    return config[name]


def measured_by(run: RunFolder) -> list[str]:
    """Return what the run itself measured on its held-out rows, as a sentence."""
    if not run.metrics.is_file():
        return []
    _, losses = read_losses(run.metrics)
    base = [loss for step, loss in losses if step == 0]
    tuned = [loss for step, loss in losses if step > 0 and math.isfinite(loss)]
    if not base or not tuned:
        return []
    return [
        tr_later(
            "The run measured {base:.4f} before training and {tuned:.4f} at its best on these "
            "rows.",
            base=base[0],
            tuned=min(tuned),
        )
    ]
