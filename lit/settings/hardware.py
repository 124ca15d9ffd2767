"""The device of a run and its precision, where the settings leave it open."""

from contextlib import suppress

import torch
from jsonargparse import Namespace
from transformers import PretrainedConfig

from lit.device.device import check_quantization, choose_device, weakest_traits
from lit.device.precision import (
    AUTO,
    BF16_FROZEN,
    Choice,
    check_precision,
    choose_precision,
    needs_dense_base,
)
from lit.distributed.sharding import shards
from lit.fast_layers.library import bf16_gain
from lit.messages import tr
from lit.model.architecture import skeleton
from lit.model.tuned import read_base_config
from lora.config import ConfigError
from lora.families.linear import linear_layers


class Hardware:
    """What a run computes on and in.

    Args:
        config: The settings; their trainer.precision is set here if it is ``auto``.

    Raises:
        ConfigError: There is no such device, or it cannot compute what the settings ask for.
    """

    def __init__(self, config: Namespace) -> None:
        self._trainer, model = config.trainer, config.model
        device = choose_device(str(self._trainer.accelerator))
        self.device = weakest_traits(device, self._trainer.devices)
        self._is_open = self._trainer.precision == AUTO
        # Other choices of a CPU do not depend on the model, whose config may need the hub.
        timed = device.type == "cpu" and self._is_open and self.device.cpu_bf16
        # A sharded base has plain layers.
        sharded = shards(self._trainer.strategy)
        timed = timed and not sharded
        base = None
        if device.type != "cpu":
            base = read_base_config(model.base, model.revision)
        elif timed:
            # Other settings are checked first; without a base, loading it says what is wrong.
            with suppress(ConfigError):
                base = read_base_config(model.base, model.revision)
        self._model_type = base.get_text_config().model_type if base else ""
        quantized = bool(model.quantize or getattr(base, "quantization_config", None))
        self.precision = Choice(self._trainer.precision, tr("as set"))
        """The precision and why."""
        if self._is_open:
            gain = _bf16_gain(base, model.base) if base and timed and not quantized else None
            self.precision = choose_precision(self.device, self._model_type, quantized, gain)
        check_precision(self.precision.value, self.device, self._model_type)
        if self.precision.value == BF16_FROZEN and (model.quantize or sharded):
            raise needs_dense_base()
        check_quantization(model.quantize, self.device)
        self._trainer.precision = self.precision.value

    def resume_in(self, precision: str) -> None:
        """Take the precision of the checkpoint that a run resumes from, where it was left open.

        Raises:
            ConfigError: The device cannot compute in it.
        """
        if not self._is_open or precision == self._trainer.precision:
            return
        try:
            check_precision(precision, self.device, self._model_type)
        except ConfigError:
            raise ConfigError(
                tr(
                    "the checkpoint's run trains in {precision}, and {device} cannot: resume on "
                    "a device that can, or start a new run in another --output_dir",
                    precision=precision,
                    device=self.device,
                )
            ) from None
        self._trainer.precision = precision
        self.precision = Choice(precision, tr("as the checkpoint's run"))


def _bf16_gain(config: PretrainedConfig, base: str) -> float | None:
    try:
        model = skeleton(config, base, torch.bfloat16)
    except (OSError, ValueError):  # loading the weights will say what is wrong
        return None
    return bf16_gain(linear_layers(model).values())
