"""The files by which a model that sees or hears prepares pictures and sounds."""

import shutil
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from lit.messages import tr
from lit.run.console import print_rank0

FILES = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")


def copy_processor(base: str, revision: str | None, folder: Path) -> None:
    """Copy the processor's files of a base model into a folder, and say which could not be had.

    Args:
        base: A hub name or a local folder.
        revision: A branch, tag or commit of the hub.
        folder: The folder of the new model.
    """
    lost = []
    for name in FILES:
        try:
            found = Path(base) / name
            if not Path(base).is_dir():
                found = Path(hf_hub_download(base, name, revision=revision))
            if found.is_file():
                shutil.copyfile(found, folder / name)
        except LocalEntryNotFoundError:  # not in the cache, and the hub was not asked
            lost.append(name)
        except EntryNotFoundError:
            continue
        except Exception:  # the errors of the transport have no common public class
            lost.append(name)
    if lost:
        print_rank0(
            tr(
                "merge  the hub cannot be reached for {lost}: copy what {base} has of them into "
                "the folder if the merged model should see or hear",
                lost=", ".join(lost),
                base=base,
            ),
            note=True,
        )
