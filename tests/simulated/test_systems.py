"""Every command on simulated Windows and macOS writes what it writes here."""

import csv
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from data.planning.epoch_plans import EpochPlans
from data.planning.loader import MicroBatches
from data.store import build_store
from lit.distributed import rank_store

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

from commands import ROWS, commands, run_commands  # noqa: E402
from probe import PROBES, run_probes  # noqa: E402

EQUAL = (
    *("run/adapter/adapter_model.safetensors", "run/adapter/adapter_config.json"),
    *(
        "saved.jsonl",
        "run/validation.jsonl",
        "run/lit-lora.json",
        "merged/model.safetensors",
        "merged/Modelfile",
    ),
    *("peft/adapter_model.safetensors", "lora.gguf", "run/comparison/base_answers.txt"),
    *("run/comparison/tuned_answers.txt", "run/adapter/README.md"),
)
"""Files that have the same bytes on every system, but for the folder's name."""
MISSING = {
    "import": "ModuleNotFoundError",
    "os.": "AttributeError",
    "SIGKILL": "ImportError",
    "rename onto a file": "FileExistsError",
    "flush a file opened for reading": "OSError",
    "a colon in a name": "OSError",
    "a text file's line ends": "AssertionError",
    "Cyrillic in the default encoding": "UnicodeEncodeError",
    "fork as start method": "ValueError",
    "sys.platform": "AssertionError",
}
"""What the simulation raises, by the start of a probe's name; PermissionError for the others."""


@pytest.fixture(scope="module")
def here(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what all commands write on this system."""
    folder = tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder.parent / "cache")
        assert set(run_commands(tiny_folder, folder).values()) == {0}
    return folder


def files(folder: Path) -> set[str]:
    """Return the names of all files, with the event files' times and hosts left out."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name.split("tfevents")[0] for name in names} - {"codes.json"}


def metrics(folder: Path) -> list[dict[str, str]]:
    """Return the rows of metrics.csv, without the speed."""
    with (folder / "run" / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [row | {"train/tokens_per_s": ""} for row in csv.DictReader(file)]


@pytest.mark.parametrize(("system", "encoding"), [("windows", "cp866"), ("macos", "ascii")])
def test_every_command_runs_on_another_system_and_writes_the_same(
    system: str, encoding: str, here: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / "commands.py"), system, str(tiny_folder), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        env=os.environ
        | {
            "PYTHONIOENCODING": f"{encoding}:strict",
            "HF_DATASETS_CACHE": str(tmp_path / "cache"),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        },
    )
    output = (done.stdout + done.stderr).decode(encoding)
    assert done.returncode == 0, output
    codes = json.loads((tmp_path / "codes.json").read_text())
    assert codes == dict.fromkeys(commands(tiny_folder, tmp_path), 0), output
    assert "Traceback" not in output
    assert {name for name in files(tmp_path) if not name.startswith("cache/")} == files(here)
    assert metrics(tmp_path) == metrics(here)
    for name in EQUAL:
        written = (tmp_path / name).read_bytes().replace(bytes(tmp_path), bytes(here))
        assert written == (here / name).read_bytes(), name


@pytest.mark.parametrize("system", ["linux", "win32"])
def test_ranks_meet_in_a_store_that_the_system_has(
    system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, object] = {}
    store = torch.distributed.HashStore()

    def make(*_: object, **options: object) -> torch.distributed.Store:
        given.update(options)
        return store

    monkeypatch.setattr(rank_store, "TCPStore", make)
    monkeypatch.setattr(rank_store, "sys", SimpleNamespace(platform=system))
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "1")
    rank_store.RankStore(0, 2)
    assert given["use_libuv"] == (system == "linux")


@pytest.mark.parametrize("system", ["linux", "windows"])
def test_the_simulation_forbids_what_windows_forbids(system: str, tmp_path: Path) -> None:
    if system == "linux":
        assert set(json.loads(run_probes(tmp_path)).values()) == {""}
        return
    code = (
        f"import sys; sys.path.insert(0, {str(HERE)!r}); from pathlib import Path\n"
        f"from systems import simulate; simulate('windows', Path({str(HERE)!r}))\n"
        f"from probe import run_probes; print(run_probes(Path({str(tmp_path)!r})))"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout
    assert json.loads(out) == {
        name: next(
            (error for start, error in MISSING.items() if name.startswith(start)), "PermissionError"
        )
        for name in PROBES
    }


def test_the_batches_that_a_started_worker_gets_can_be_pickled(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    store = build_store(path, tokenizer, max_length=256, cache=tmp_path / "cache")
    rows = np.arange(len(store.lengths))
    batches = MicroBatches(store, rows, EpochPlans.of(store, rows, True, batch_size=2), rank=0)
    copy = pickle.loads(pickle.dumps(batches))
    assert copy[1].input_ids.equal(batches[1].input_ids)
