"""python -m lit.search, from the command line to best.yaml and the adapter."""

import contextlib
import io
import json
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import datasets
import pytest
import yaml
from command import Command, Fault
from conftest import moved
from transformers import AutoModelForCausalLM

from lit.fit import main as fit
from lit.run.metrics_file import read_losses
from lit.search import main
from lit.searching.results import name_of
from lit.searching.trials.ledger import Ledger, Slot
from lit.searching.trials.storage import open_storage
from lora.config import LoRAConfig
from lora.injection import inject
from lora.storage.adapter import save_adapter
from lora.storage.metadata import read_quantization

ROWS = [
    {"prompt": f"How warm is bed {i}?", "response": f"Bed {i} is {50 + i % 7} degrees warm."}
    for i in range(50)
]
WEIGHTS = "adapter/adapter_model.safetensors"


class Finished(NamedTuple):
    """A finished search that no test changes, its command line, and what it printed."""

    folder: Path
    command: list[str]
    printed: str


def command_line(base: Path, folder: Path, rows: int = 50) -> list[str]:
    """Return a search on 30 rows that train, 10 that choose and 10 that report: 2 × 8 steps."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS[:rows]), "utf-8")
    return [
        *("--model.base", str(base), "--data.path", str(path), "--data.val_fraction", "0.4"),
        *("--trainer.accelerator", "cpu", "--trainer.max_epochs", "2", "--model.lr", "2e-3"),
        *("--model.lora.lora_dropout", "0.1", "--output_dir", str(folder / "search")),
    ]


def slots(folder: Path, storage: str | None = None) -> list[Slot]:
    """Return the trials of a search's folder."""
    known = json.loads((folder / "search.json").read_text("utf-8"))
    return Ledger(open_storage(storage, folder), name_of(known), "test").slots()


def outcome(folder: Path, storage: str | None = None) -> list[tuple]:
    """Return what must be equal of two searches: everything but the time."""
    trials = [slot.trial for slot in slots(folder, storage)]
    assert all(trials)
    return [(x.number, x.key, x.seed, x.state, x.curve, x.choose, x.report) for x in trials if x]


@pytest.fixture(scope="module")
def finished(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A search of 4 settings."""
    folder, printed = tmp_path_factory.mktemp("finished"), io.StringIO()
    command = [*command_line(tiny_folder, folder), "--trials", "4"]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        assert main(command) == 0
    return Finished(folder / "search", command, printed.getvalue())


@pytest.fixture(scope="module")
def searches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """lit.search in processes that can be killed."""
    with Command(tmp_path_factory.mktemp("searches"), "search") as command:
        yield command


def test_a_search_leaves_the_files_that_it_names(finished: Finished) -> None:
    names = {path.name for path in finished.folder.iterdir()}
    assert {"best.yaml", "adapter", "validation.jsonl", "search.json", "trials"} <= names
    lines = (finished.folder / "validation.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == 10
    said = finished.printed
    assert "30 rows train, 10 choose, 10 report" in said
    assert "3 tries" in said
    assert re.search(r"best \d\.\d{4} \(trial \d\)", said)
    assert f"next   python -m lit.compare --adapter {finished.folder / 'adapter'}" in said
    assert said.count("loading") == 1


def test_a_search_tries_the_configs_own_settings_first_and_ends_with_whole_runs(
    finished: Finished,
) -> None:
    found = slots(finished.folder)
    assert [slot.job.kind for slot in found] == ["own", "try", "try", "try", *["final"] * 3]
    own = found[0].trial
    assert own is not None
    assert own.settings["model.lr"] == 2e-3
    assert own.full_schedule
    assert own.report is not None
    assert len(own.report) == len(own.choose or ()) == 10


def test_best_yaml_through_lit_fit_gives_the_same_adapter(
    finished: Finished, tmp_path: Path
) -> None:
    best = finished.folder / "best.yaml"
    assert fit(["--config", str(best), "--output_dir", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / WEIGHTS).read_bytes() == (finished.folder / WEIGHTS).read_bytes()
    assert "data.report_fraction" not in best.read_text("utf-8").partition("model:")[0]
    assert yaml.safe_load(best.read_text("utf-8"))["data"]["report_fraction"] == 0.5


def test_every_kept_trial_is_that_of_a_fresh_process_bit_for_bit(
    finished: Finished, tmp_path: Path, searches: Command
) -> None:
    # Trial 4 was trained after adapters of other ranks and targets had been on the same base.
    (kept,) = [slot for slot in slots(finished.folder) if slot.job.seed == 42][-1:]
    assert kept.job.kind == "final"
    settings = [x for name, value in kept.job.settings.items() for x in (f"--{name}", str(value))]
    start = finished.command.index("--output_dir")
    fresh = finished.command[:start] + finished.command[start + 4 :] + settings
    fresh += ["--data.report_fraction", "0.5", "--output_dir", str(tmp_path / "run")]
    assert fit(fresh) == 0
    folder = finished.folder / "trials" / f"{kept.number:03}"
    assert (tmp_path / "run" / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()
    # A try too, which validates at other steps and has a constant learning rate.
    one = slots(finished.folder)[1].job
    space = tmp_path / "space.yaml"
    space.write_text(yaml.safe_dump({k: [v] for k, v in one.settings.items()}), "utf-8")
    alone = [*finished.command[:start], "--output_dir", str(tmp_path / "alone")]
    result = searches.run([*alone, "--trials", "2", "--space", str(space)])
    assert result.code == 0, result.error
    first = next(slot.trial for slot in slots(tmp_path / "alone") if slot.job.kind == "try")
    trial = slots(finished.folder)[1].trial
    assert first is not None
    assert trial is not None
    assert first.curve[:1] == trial.curve[:1]
    assert first.settings == trial.settings
    if trial.state == first.state:
        assert first.choose == trial.choose


def test_a_finished_search_has_nothing_left_to_do(finished: Finished, searches: Command) -> None:
    before = outcome(finished.folder)
    weights = (finished.folder / WEIGHTS).read_bytes()
    result = searches.run(finished.command)
    assert result.code == 0, result.error
    assert "trial 0" not in result.out
    assert outcome(finished.folder) == before
    assert (finished.folder / WEIGHTS).read_bytes() == weights


def quantized(folder: Path, base: Path) -> list[str]:
    return ["--model.base", str(base), "--model.quantize", "nf4"]


def in_bfloat16(folder: Path, base: Path) -> list[str]:
    return ["--model.base", str(base), "--trainer.precision", "bf16-frozen"]


def continued(folder: Path, base: Path) -> list[str]:
    """Save an adapter of rank 4 that is not a new one."""
    model = AutoModelForCausalLM.from_pretrained(base)
    inject(model, LoRAConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"]))
    save_adapter(moved(model), folder / "first", str(base))
    return ["--model.adapter", str(folder / "first")]


@pytest.mark.parametrize("start", [quantized, in_bfloat16, continued])
def test_a_search_on_another_base_or_from_an_adapter_is_repeated_by_its_best_yaml(
    start: Callable[[Path, Path], list[str]],
    tiny_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    own = start(tmp_path, tiny_folder)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    command = [*own, *command_line(tiny_folder, tmp_path)[2:], "--trials", "3"]
    assert main(command) == 0
    said = capsys.readouterr().out
    found = slots(tmp_path / "search")
    trials = [slot.trial for slot in found if slot.trial]
    assert [slot.job.kind for slot in found] == ["own", "try", "try", *["final"] * 3]
    assert {trial.state for trial in trials} <= {"finished", "stopped early"}
    best, run = tmp_path / "search" / "best.yaml", tmp_path / "run"
    assert fit(["--config", str(best), "--output_dir", str(run)]) == 0
    assert (run / WEIGHTS).read_bytes() == (tmp_path / "search" / WEIGHTS).read_bytes()
    if start is quantized:
        assert yaml.safe_load(best.read_text("utf-8"))["model"]["quantize"] == "nf4"
        assert read_quantization(run / "adapter") == "nf4"
        return
    if start is in_bfloat16:
        assert yaml.safe_load(best.read_text("utf-8"))["trainer"]["precision"] == "bf16-frozen"
        return
    assert {trial.settings["model.lora.r"] for trial in trials} == {4}
    assert said.count("goes on from the adapter") == 1
    assert all(path.read_bytes() == content for path, content in before.items())
    # What gains are measured from is the adapter, as in lit.fit.
    search = json.loads((tmp_path / "search" / "report.json").read_text("utf-8"))["search"]
    (step, loss), *_ = read_losses(run / "metrics.csv")[1]
    assert step == 0
    assert sum(search["base_choose"]) / sum(search["choose_labels"]) == pytest.approx(loss)


STEP = "lit.train.module.LoRAModule.training_step"
FAULTS = {
    "in the first trial": [Fault(STEP, 9)],
    "in a try, then while a record is written": [
        Fault(STEP, 27),
        Fault("lit.searching.trials.ledger.Ledger.finish", 2),
    ],
    "before a trial starts, then in a final run": [
        Fault("lit.searching.trials.ledger.Ledger.claim", 2),
        Fault("lit.train.best_adapter.BestAdapter.on_validation_end", 14),
    ],
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_search_that_is_killed_goes_on_to_the_same_trials_and_the_same_winner(
    name: str, finished: Finished, searches: Command, tmp_path: Path
) -> None:
    command = [str(tmp_path / "s") if "search" in x[-6:] else x for x in finished.command]
    for fault in FAULTS[name]:
        assert searches.run(command, fault=fault).code == -signal.SIGKILL
    result = searches.run(command)
    assert result.code == 0, result.error
    assert outcome(tmp_path / "s") == outcome(finished.folder)
    best = [(folder / WEIGHTS).read_bytes() for folder in (tmp_path / "s", finished.folder)]
    assert best[0] == best[1]


@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_two_processes_on_one_storage_run_no_trial_twice(
    kind: str, finished: Finished, searches: Command, tmp_path: Path
) -> None:
    storage = str(tmp_path / "shared") if kind == "file" else f"sqlite:///{tmp_path}/shared.db"
    commands = [
        [str(tmp_path / name) if "search" in x[-6:] else x for x in finished.command]
        for name in ("a", "b")
    ]
    pids = [
        searches.start([*command, "--storage", storage], name=f"-{i}")
        for i, command in enumerate(commands)
    ]
    results = searches.wait_all(pids)
    assert [result.code for result in results] == [0, 0], results
    found = slots(tmp_path / "a", storage)
    jobs = [(slot.job.kind, json.dumps(slot.job.settings), slot.job.seed) for slot in found]
    assert len(set(jobs)) == len(jobs)
    assert [slot.job.kind for slot in found][:4].count("own") == 1
    ended = [re.findall(r"^trial (\d+) ", result.out, re.M) for result in results]
    assert sorted(map(int, [*ended[0], *ended[1]])) == [slot.number for slot in found]
    assert all(ended), "both worked"


def test_a_signal_ends_a_search_with_what_is_known(
    finished: Finished, searches: Command, tmp_path: Path
) -> None:
    command = [str(tmp_path / "s") if "search" in x[-6:] else x for x in finished.command]
    result = searches.run(command, fault=Fault(STEP, 40, "SIGINT"))
    assert result.code == 130, result.error
    assert "result " in result.out
    assert (tmp_path / "s" / "best.yaml").is_file()
    result = searches.run(command)
    assert result.code == 0
    assert outcome(tmp_path / "s") == outcome(finished.folder)


def test_a_signal_before_anything_is_known_leaves_nothing_to_report(
    finished: Finished, searches: Command, tmp_path: Path
) -> None:
    command = [str(tmp_path / "s") if "search" in x[-6:] else x for x in finished.command]
    result = searches.run(command, fault=Fault(STEP, 8, "SIGTERM"))
    assert result.code == 143, result.error
    assert "before the config's own settings had a result" in result.out
    assert not (tmp_path / "s" / "best.yaml").exists()


DIVERGING = {
    "lr": (
        "model.lr: [0.99]\nmodel.lora.lora_alpha: [20000]\n",
        None,
        r"^step \d+: loss .*norm (inf|nan).*Lower model.lr",
    ),
    "nan": (
        "model.lr: [1e-3]\n",
        Fault(STEP, 24, "nan"),
        r"^step 4: loss 5.*norm nan.*Lower model.lr",
    ),
    "memory": ("model.lr: [1e-3]\n", Fault(STEP, 24, "MemoryError"), "^out of memory$"),
    "layer": (
        "model.lora.target_modules: [no_proj]\n",
        None,
        "^no linear layer is named no_proj; .*Set model.lora.target_modules to",
    ),
}


@pytest.mark.parametrize("name", DIVERGING)
def test_a_trial_that_cannot_go_on_has_a_reason_and_is_not_the_end(
    name: str, tiny_folder: Path, tmp_path: Path, searches: Command
) -> None:
    text, fault, reason = DIVERGING[name]
    space = tmp_path / "space.yaml"
    space.write_text(text, "utf-8")
    command = [*command_line(tiny_folder, tmp_path), "--space", str(space), "--trials", "2"]
    result = searches.run(command, fault=fault)
    assert result.code == 0, result.error
    trial = slots(tmp_path / "search")[1].trial
    assert trial is not None
    assert (trial.state, trial.choose) == ("failed", None)
    assert re.search(reason, trial.reason)
    assert f"failed: {trial.reason}" in result.out
    assert (tmp_path / "search" / WEIGHTS).is_file()


def test_a_dry_run_says_what_fits_and_tries_nothing(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    command = command_line(tiny_folder, tmp_path)
    assert main([*command, "--budget", "2h", "--dry_run"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"a step takes 0\.\d\d s, a whole run of 16 steps about \d+ s", said)
    assert "tries" in said
    assert slots(tmp_path / "search") == []


def test_too_few_rows_to_choose_by_train_the_configs_own_settings_alone(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    command = command_line(tiny_folder, tmp_path, rows=30)
    assert main([*command, "--trials", "5"]) == 0
    said = capsys.readouterr().out
    assert "6 rows to choose by and 6 rows to report on are too few" in said
    assert len(slots(tmp_path / "search")) == 1
    best = yaml.safe_load((tmp_path / "search" / "best.yaml").read_text("utf-8"))
    assert best["model"]["lr"] == 2e-3


REFUSED = {
    "no budget": ([], "give either --budget, such as 30m, or --trials"),
    "both": (["--budget", "3m", "--trials", "3"], "give either --budget"),
    "a budget without unit": (["--budget", "30"], "write it as 90s, 3m or 1h"),
    "no trial": (["--trials", "0"], "--trials is 0"),
    "a setting": (["--trials", "3", "--model.lrr", "1"], "there is no setting model.lrr"),
    "no rows": (["--trials", "3", "--data.val_fraction", "0"], "no rows are held out"),
    "two devices": (["--trials", "3", "--trainer.devices", "2"], "trains on one device"),
    "a checkpoint": (["--trials", "3", "--ckpt_path", "last"], "ckpt_path is for lit.fit"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_search_cannot_do_is_refused(
    name: str, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    more, text = REFUSED[name]
    assert main([*command_line(tiny_folder, tmp_path), *more]) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "search").exists()


def test_a_wrong_key_of_the_space_is_refused_with_its_line(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("model.lora.r: [4, 8]\nmodel.lora.target_module: [attention]\n", "utf-8")
    command = [*command_line(tiny_folder, tmp_path), "--trials", "3", "--space", str(space)]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert f"{space}:2: there is no setting model.lora.target_module; did you mean" in error


def test_a_folder_of_another_search_is_replaced_only_if_asked(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    command = [*command_line(tiny_folder, tmp_path), "--budget", "2h", "--dry_run"]
    assert main(command) == 0
    assert main([*command, "--model.lr", "1e-3"]) == 2
    assert "holds a search with other settings (model.lr" in capsys.readouterr().err
    assert main([*command, "--model.lr", "1e-3", "--overwrite", "true"]) == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert main([*command, "--output_dir", str(tmp_path / "mine")]) == 2
    assert "holds notes.txt, and no search wrote it" in capsys.readouterr().err
