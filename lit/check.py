"""Check before training: python -m lit.check --config F [any override]

Prints what a run of ``lit.fit`` with the same arguments would do, and whether it can work. Loads
the tokenizer and the model's config, and no weights. Writes ``check.html`` into the run's folder.

Exit codes: 0 the run works, perhaps with warnings; 2 it cannot work; 130 stopped by Ctrl-C.
"""

import sys

from lit.messages import tr, tr_mark
from lit.run.command import run_command
from lit.run.console import loading_libraries
from lit.settings.language import in_language

ABOUT = tr_mark("Print what a run of lit.fit would do; no weights are loaded.")


@in_language
def main(args: list[str]) -> int:
    """Run the command."""
    # The outer one covers the imports of the inner one, which take seconds.
    return run_command(lambda: _check(args), {})


def _check(args: list[str]) -> int:
    with loading_libraries():
        from lit.model import base as models
        from lit.preflight.checkup import examine
        from lit.preflight.sections import check_page, sections, write
        from lit.report.page import show_page
        from lit.run import console
        from lit.run.folder import RunFolder
        from lit.settings.arguments import parse, setting_names

    console.quiet()
    models.quiet()

    def check() -> int:
        arguments = parse(args, "python -m lit.check", ABOUT)
        folder = RunFolder(arguments.config.output_dir)
        folder.check_inputs(arguments.inputs())
        resume = arguments.config.ckpt_path
        folder.check_owner(resume=bool(resume) and folder.has_checkpoint(resume))
        check_page(folder.path)
        print(tr("reading the rows and planning the run …"), file=sys.stderr, flush=True)
        checkup = examine(arguments)
        show_page(sections(checkup, None))
        try:
            print(tr("wrote  {path}", path=write(checkup, folder.path)))
        except OSError as error:
            print(tr("the page is not written: {error}", error=error), file=sys.stderr)
        return 2 if checkup.fatal else 0

    return run_command(check, setting_names())


if __name__ == "__main__":
    sys.exit(main())
