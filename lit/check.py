"""Before training: python -m lit.check --config F [any override]

Says what a run of ``lit.fit`` with the same arguments would do, and whether it can work; loads the
tokenizer and the model's config, and no weight. Writes ``check.html`` into the run's folder.

Exit codes: 0 it works, perhaps with warnings; 2 it cannot work.
"""

import sys
from pathlib import Path

from data.types import DataError
from lit.model import base as models
from lit.preflight.checkup import examine
from lit.preflight.sections import sections, write
from lit.report.page import show_page
from lit.run import console
from lit.settings.arguments import parse
from lora.config import ConfigError


def main(args: list[str] | None = None) -> int:
    """Run the command."""
    console.quiet()
    models.quiet()
    about = ("python -m lit.check", "Say what a run of lit.fit would do, before it loads a model.")
    try:
        arguments = parse(sys.argv[1:] if args is None else args, *about)
        checkup = examine(arguments)
    except (ConfigError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    show_page(sections(checkup, None))
    try:
        print(f"wrote  {write(checkup, Path(arguments.config.output_dir))}")
    except OSError as error:
        print(f"the page is not written: {error}", file=sys.stderr)
    return 2 if checkup.fatal else 0


if __name__ == "__main__":
    sys.exit(main())
