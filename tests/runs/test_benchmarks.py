"""The arithmetic of the benchmarks; all contenders get the same rows, one contender at a time."""

import json
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.peers import rows, speed
from benchmarks.peers.medians import ratio, spread, summarize
from benchmarks.peers.render import BEGIN, END, write
from benchmarks.peers.results import Results, machine
from benchmarks.peers.rows import Step, digest
from benchmarks.peers.workloads import MODES, SEED, rows_needed
from data.planning.plan import plan_epoch

FAKE = """
import sys, time
from pathlib import Path
from typing import Any
sys.path.insert(0, {root!r})
from benchmarks.peers.gate import Gate
from benchmarks.peers.rows import digest_of, read
steps, _ = read(Path({steps!r}))
gate, report = Gate.from_environment(), {{}}
for step in steps:
    gate.step(**report)
    with open({journal!r}, "a") as journal:
        print({name!r}, "begins", file=journal, flush=True)
        time.sleep(0.01)
        print({name!r}, "ends", file=journal, flush=True)
    report = {{"rows": {digest}}}
gate.step(**report)
"""
ROOT = str(Path(__file__).resolve().parents[2])
STEPS = [Step([[1, 2], [3]], [[-100, 2], [3]]), Step([[4]], [[4]]), Step([[5, 6]], [[5, 6]])]


def fake(tmp_path: Path, name: str, digest: str = "digest_of(step)") -> tuple[list[str], dict]:
    """Return the command of a contender that only writes down when it works."""
    journal, steps = str(tmp_path / "journal"), str(tmp_path / "steps.json")
    code = FAKE.format(root=ROOT, steps=steps, journal=journal, name=name, digest=digest)
    return [sys.executable, "-c", code], {}


@pytest.fixture
def steps(tmp_path):
    path = tmp_path / "steps.json"
    rows.write(path, STEPS, model="m")
    return path


def test_a_file_of_steps_is_read_as_it_was_written(steps):
    assert rows.read(steps) == (STEPS, {"model": "m"})
    assert [step.tokens for step in STEPS] == [3, 1, 2]


def test_contenders_work_one_at_a_time_and_take_turns_at_being_first(tmp_path, steps):
    commands = {name: fake(tmp_path, name) for name in ("x", "y")}
    reports, _, failed = speed.run_rounds(commands, steps, tmp_path)
    assert not failed
    assert [len(own) for own in reports.values()] == [3, 3]
    assert all(report["seconds"] >= 0.01 for own in reports.values() for report in own)
    journal = (tmp_path / "journal").read_text().splitlines()
    order = ("x", "y", "y", "x", "x", "y")
    assert journal == [f"{name} {what}" for name in order for what in ("begins", "ends")]


def test_a_contender_with_other_rows_or_none_is_named_and_the_others_continue(tmp_path, steps):
    commands = {
        "good": fake(tmp_path, "good"),
        "wrong": fake(tmp_path, "wrong", digest="0"),
        "broken": ([sys.executable, "-c", "raise SystemExit('no such model')"], {}),
        "absent": ([str(tmp_path / "absent")], {}),
    }
    reports, _, failed = speed.run_rounds(commands, steps, tmp_path)
    assert len(reports["good"]) == 3
    assert failed["wrong"] == "step 1 had other rows"
    assert "exit code 1" in failed["broken"]
    assert "no such model" in failed["broken"]
    assert set(failed) == {"wrong", "broken", "absent"}


def test_a_digest_depends_on_the_order():
    assert digest([1, 2]) == digest([1, 2]) != digest([2, 1])


@pytest.mark.parametrize("mode", MODES)
def test_a_workload_has_the_fewest_rows_that_fill_its_steps(mode):
    lengths = np.random.default_rng(0).integers(20, 500, 300)
    taken = rows_needed(lengths, lengths, MODES[mode], steps=4)
    planned = plan_epoch(lengths[:taken], lengths[:taken], seed=SEED, **MODES[mode])
    fewer = plan_epoch(lengths[: taken - 1], lengths[: taken - 1], seed=SEED, **MODES[mode])
    assert planned.steps >= 4
    assert planned.rows(0, 3).size == 4 or "max_tokens" in MODES[mode]
    assert fewer.steps <= 4


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="3 rows are too few for 2 steps"):
        rows_needed(np.full(3, 9), np.full(3, 9), {"batch_size": 4}, steps=2)


def test_a_ratio_is_the_median_of_pairs_and_not_the_ratio_of_medians():
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == (1.0, 3.0, 5.0)
    # The medians are 6 and 1; the ratios of the pairs are 2, 6 and 1, their median is 2.
    assert ratio([2.0, 6.0, 9.0], [1.0, 1.0, 9.0]).middle == 2.0


def test_a_summary_leaves_the_warm_step_out_and_counts_useful_tokens():
    cell = {
        "tokens": [100, 200, 400],
        "warm": 1,
        "gflop_of_product": 10.0,
        "contenders": {
            "ours": {"seconds": [50.0, 1.0, 2.0], "flops": 5e9, "peak_mb": 1.0},
            "peft": {"seconds": [50.0, 4.0, 4.0], "flops": None, "peak_mb": 2.0},
            "ceiling": {"seconds": [9.0, 0.5, 0.5], "flops": None, "peak_mb": 0.1},
        },
    }
    ours, theirs = summarize(cell, "ours"), summarize(cell, "peft")
    assert (ours.tokens_per_s, ours.seconds, ours.gflop_per_token) == (200.0, 1.5, 0.05)
    # 200 tokens/s of 0.05 GFLOP each are 10 GFLOP/s; the ceiling is 20.
    assert ours.share == 0.5
    assert theirs.ratio.middle == 3.0
    assert theirs.share is None


def test_an_interrupted_run_measures_only_what_is_missing(tmp_path):
    path = tmp_path / "results.json"
    Results(path, "c").measure("x", lambda: {"seconds": 1})
    Results(path, "c").measure("y", lambda: 1 / 0)
    second = Results(path, "c")
    assert second.cells["y"]["error"] == "ZeroDivisionError: division by zero"
    second.measure("x", lambda: pytest.fail("was measured before"))
    second.measure("y", lambda: {"seconds": 2})
    cells = json.loads(path.read_text())
    assert {name: cell["seconds"] for name, cell in cells.items()} == {"x": 1, "y": 2}
    made = {"command": "c", "date": date.today().isoformat(), "machine": machine()}
    assert cells["x"]["made"] == made
    Results(path, "c", fresh=True).measure("x", lambda: {"seconds": 3})
    assert list(json.loads(path.read_text())) == ["x"]


def made(cpu: str) -> dict[str, Any]:
    machine = {"cores": 2, "cpu": cpu, "memory_gb": 1, "python": "3", "versions": {"torch": "1"}}
    return {"command": "c", "date": "2026-01-02", "machine": machine}


def test_the_tables_are_replaced_and_the_text_around_them_stays(tmp_path):
    path = tmp_path / "RESULTS.md"
    cells = {"growth/rows/1": {"error": "why", "made": made("p")}}
    path.write_text(f"# Results\n\n## Mine\n\n{BEGIN}\nold\n{END}\n\n## Yours\n")
    write(cells, tmp_path)
    once = path.read_text()
    assert once.startswith("# Results\n\n## Mine\n")
    assert once.endswith(f"{END}\n\n## Yours\n")
    assert "growth/rows/1 was not measured: why" in once
    assert "old" not in once
    write(cells, tmp_path)
    assert path.read_text() == once


def test_each_measurement_is_told_with_the_machine_that_it_was_made_on(tmp_path):
    cells = {f"growth/rows/{n}": {"error": "why", "made": made(cpu)} for n, cpu in enumerate("ppq")}
    write(cells, tmp_path)
    text = (tmp_path / "RESULTS.md").read_text()
    for cpu, names in (("p", "growth/rows/0, growth/rows/1"), ("q", "growth/rows/2")):
        assert f"- `c`, 2026-01-02, 2 cores of {cpu}, 1 GB, Python 3, torch 1: {names}\n" in text


def test_the_tables_in_the_repository_are_those_of_results_json(tmp_path):
    folder = Path(ROOT, "benchmarks")
    text = (folder / "RESULTS.md").read_text("utf-8")
    (tmp_path / "RESULTS.md").write_text(text, "utf-8")
    write(json.loads((folder / "results.json").read_text("utf-8")), tmp_path)
    assert (tmp_path / "RESULTS.md").read_text("utf-8") == text
