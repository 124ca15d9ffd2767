"""Train: python -m lit.fit --config F [--ckpt_path last|FILE] [--output_dir D] [any override]

Exit codes: 0 done; 2 the settings or the data cannot be used; 1 failure; 130 and 143 stopped by a
signal after saving.
"""

import sys

from lit.messages import tr
from lit.run.command import run_command
from lit.run.console import loading_libraries
from lit.settings.language import in_language


@in_language
def main(args: list[str]) -> int:
    """Run the command."""
    # The outer one covers the imports of the inner one, which take seconds.
    return run_command(lambda: _fit(args), {})


def _fit(args: list[str]) -> int:
    with loading_libraries():
        from lit.device.memory import retain_heap
        from lit.distributed.ranks import Ranks, is_connection_error
        from lit.fitting.training import fit
        from lit.model import base as models
        from lit.run import console
        from lit.settings.arguments import parse, setting_names
        from lit.train.longest_batch import LOWER_MEMORY, is_out_of_memory
        from lit.train.step_guard import TrainingError

    console.quiet()
    models.quiet()
    ranks = Ranks()
    lost = False

    def train() -> None:
        nonlocal lost
        try:
            ranks.connect()
            retain_heap()
            fit(parse(args), ranks)
        except (MemoryError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise TrainingError(
                    tr("out of memory. {advice}", advice=tr(LOWER_MEMORY))
                ) from None
            if ranks.size > 1 and is_connection_error(error):
                lost = True
                # The message is found out while the ranks end together.
                raise TrainingError("") from None
            raise

    return run_command(train, setting_names(), lambda code, text: ranks.end(code, text, lost))


if __name__ == "__main__":
    sys.exit(main())
