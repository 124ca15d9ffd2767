"""Whether a run's model can share beginnings of rows, found out before its weights are loaded."""

from lit.device.precision import base_dtype
from lit.messages import tr
from lit.preflight.estimate import meta_model
from lit.preflight.meta_step import cannot_share
from lit.run.console import print_rank0
from lit.settings.arguments import Arguments


def settle_sharing(arguments: Arguments, always: bool = False) -> None:
    """Let the rows of a run share no beginnings if its model's family cannot.

    A run finds that out when it has loaded the model. Where sharing decides which rows form a
    micro-batch, that is too late.

    Args:
        arguments: Started, with the data set up.
        always: Find out in any case, and not only where micro-batches depend on it.

    Raises:
        ConfigError: The base does not exist, or cannot be loaded.
    """
    data, module = arguments.datamodule, arguments.model
    plans = data.plans, data.val_plans
    moves = data.limits["max_tokens"] is not None or data.grouped["group_by_prefix"]
    if all(planned.beginnings is None for planned in plans) or not (moves or always):
        return
    dtype = base_dtype(str(arguments.trainer.precision))
    if reason := cannot_share(meta_model(module.base, module.revision, dtype)):
        for planned in plans:
            planned.share_nothing()
        print_rank0(tr("plan   {reason}: rows share no beginnings", reason=reason))
