"""A callback that measures the parameters which each rank holds."""

import json
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch.distributed.tensor import DTensor

from lit.train.module import LoRAModule
from lora.injection import trainable_parameters


class Held(Callback):
    """Writes the size of a rank's share of the model after each step.

    Args:
        path: The JSON file; the rank is appended to its name.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object
    ) -> None:
        """Write the bytes of the frozen tensors, here and in total, and the dtypes that train."""
        assert isinstance(pl_module, LoRAModule)
        model = pl_module.adapted_model
        frozen = [p for p in model.parameters() if not p.requires_grad]
        local = [p.to_local() if isinstance(p, DTensor) else p for p in frozen]
        held = {
            "here": sum(p.untyped_storage().nbytes() for p in local),
            "all": sum(p.numel() * p.element_size() for p in frozen),
            "dtypes": sorted({str(p.dtype) for p in trainable_parameters(model).values()}),
        }
        Path(f"{self.path}.{trainer.global_rank}").write_text(json.dumps(held))
