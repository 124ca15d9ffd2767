"""No trial runs twice and none is lost, whatever process ends at whatever moment."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lit.searching.records import Point, Trial
from lit.searching.trials import owner
from lit.searching.trials.ledger import Job, Ledger, LostTrialError
from lit.searching.trials.storage import JOURNAL, open_storage, without_password
from lora.config import ConfigError

JOB = Job("try", {"model.lr": 1e-3}, 42)
KINDS = ("file", "sqlite")


@pytest.fixture(params=KINDS)
def open_ledger(request: pytest.FixtureRequest, tmp_path: Path):
    """Opens the ledger of one search again and again, as other processes do."""
    where = None if request.param == "file" else f"sqlite:///{tmp_path}/trials.db"
    return lambda place="a", name="s": Ledger(open_storage(where, tmp_path), name, place)


def trial(number: int, rows: int = 10, state: str = "finished") -> Trial:
    curve = (Point(1, 0.5, 2.0), Point(2, 1.0, 1.5))
    sums = tuple(0.1 * i for i in range(rows))
    end = (2, 100, 3.0, False)
    return Trial(number, JOB.settings, 42, state, "", curve, *end, choose=sums)  # type: ignore[arg-type]


def pretend(ledger: Ledger, **identity: object) -> None:
    """Let a ledger be that of another process."""
    ledger.owner.identity |= identity


def ended_process() -> int:
    """Return the number of a process that has ended."""
    return subprocess.Popen([sys.executable, "-c", ""]).wait() or _pid_of_the_past()


def _pid_of_the_past() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_of_two_processes_that_want_one_trial_the_first_gets_it(open_ledger) -> None:
    one, two = open_ledger(), open_ledger("b")
    pretend(one, pid=os.getppid(), started=psutil_start(os.getppid()))
    assert one.claim(0, JOB)
    assert not two.claim(0, Job("try", {"model.lr": 5e-3}, 42))
    (slot,) = two.slots()
    assert slot.running
    assert slot.job == JOB
    assert two.claim(1, JOB)


def psutil_start(pid: int) -> float:
    import psutil

    return psutil.Process(pid).create_time()


def test_the_trial_of_a_killed_process_is_free_at_once_and_its_settings_stay(open_ledger) -> None:
    one = open_ledger()
    pretend(one, pid=ended_process(), started=0.0, session="old")
    assert one.claim(0, JOB)
    one.report(1, 2.5)
    two = open_ledger("b")
    (slot,) = two.slots()
    assert not slot.running
    assert slot.trial is None
    assert slot.losses == ()
    assert slot.job == JOB
    assert two.claim(0, slot.job)
    two.finish(trial(0))
    assert open_ledger().slots()[0].trial == trial(0)


def test_a_process_number_that_another_process_has_now_does_not_count(open_ledger) -> None:
    one = open_ledger()
    pretend(one, pid=os.getppid(), started=1.0, session="old")
    assert one.claim(0, JOB)
    assert not open_ledger().slots()[0].running


def test_a_process_on_another_machine_counts_as_ended_after_a_silence(
    open_ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = open_ledger(), open_ledger("b")
    pretend(one, host="other", session="other")
    assert one.claim(0, JOB)
    assert two.slots()[0].running
    monkeypatch.setattr(owner, "SILENCE", -1.0)
    assert not two.slots()[0].running
    # The other machine was only slow: its result comes too late, and is not used.
    assert two.claim(0, JOB)
    two.finish(trial(0))
    with pytest.raises(LostTrialError):
        one.report(1, 2.0)
    assert [slot.trial for slot in two.slots()] == [trial(0)]


def test_a_process_that_was_killed_after_it_wrote_its_record_is_not_repeated(open_ledger) -> None:
    one = open_ledger()
    pretend(one, pid=ended_process(), started=0.0, session="old")
    assert one.claim(0, JOB)
    one.storage.set_trial_state_values = None  # type: ignore[method-assign,assignment]
    with pytest.raises(TypeError):
        one.finish(trial(0))
    (slot,) = open_ledger().slots()
    assert slot.trial == trial(0)


def test_a_record_of_many_rows_comes_back_as_it_was(open_ledger) -> None:
    ledger, long = open_ledger(), trial(0, rows=5000)
    assert ledger.claim(0, JOB)
    ledger.finish(long)
    (slot,) = open_ledger().slots()
    assert slot.trial == long
    assert slot.losses == (2.0, 1.5)


def test_a_trial_that_was_given_up_is_run_again(open_ledger) -> None:
    ledger = open_ledger()
    assert ledger.claim(0, JOB)
    ledger.release()
    assert not ledger.slots()[0].running
    assert ledger.claim(0, JOB)


def test_searches_of_other_settings_do_not_see_each_other(open_ledger) -> None:
    assert open_ledger(name="s").claim(0, JOB)
    assert open_ledger(name="t").slots() == []


def test_the_time_of_a_place_is_that_of_its_own_trials(open_ledger) -> None:
    one, two = open_ledger("a"), open_ledger("b")
    assert one.claim(0, JOB)
    one.finish(trial(0))
    assert two.claim(1, JOB)
    two.finish(trial(1))
    assert open_ledger("a").seconds() == 3.0
    assert open_ledger("c").seconds() == 0.0


def test_a_line_that_a_killed_process_did_not_finish_is_removed(tmp_path: Path) -> None:
    ledger = Ledger(open_storage(None, tmp_path), "s", "a")
    assert ledger.claim(0, JOB)
    journal = tmp_path / JOURNAL
    whole = journal.read_bytes()
    journal.write_bytes(whole + json.dumps({"op_code": 5, "trial": 0}).encode()[:-4])
    again = Ledger(open_storage(None, tmp_path), "s", "b")
    assert again.claim(1, JOB)
    again.finish(trial(1))
    assert [slot.number for slot in Ledger(open_storage(None, tmp_path), "s", "a").slots()] == [
        0,
        1,
    ]


STORAGES = {
    "folder": "is a folder",
    "sqlite:////no/such/folder/trials.db": "cannot be opened",
    "postgresql://me:secret@localhost/db": "://me:…@localhost/db (needs|cannot)",
    "nonsense://x": "cannot be opened",
}


@pytest.mark.parametrize("storage", STORAGES)
def test_a_storage_that_does_not_open_is_refused_without_its_password(
    storage: str, tmp_path: Path
) -> None:
    where = str(tmp_path) if storage == "folder" else storage
    with pytest.raises(ConfigError, match=STORAGES[storage]) as error:
        open_storage(where, tmp_path)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:a:b@host/db", "postgresql://me:…@host/db"),
        ("mysql+pymysql://me@host:3306/db", "mysql+pymysql://me@host:3306/db"),
        ("sqlite:///trials.db", "sqlite:///trials.db"),
    ],
)
def test_a_password_is_not_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown


def test_processes_that_create_the_tables_of_one_database_at_once_all_open_it(
    tmp_path: Path,
) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from lit.searching.trials.storage import open_storage\n"
        "time.sleep(max(0, float(sys.argv[2]) - time.time()))\n"
        "open_storage(sys.argv[1], Path())"
    )
    url, start = f"sqlite:///{tmp_path}/trials.db", str(time.time() + 8)
    command = [sys.executable, "-c", code, url, start]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[1] for process in started] == [""] * 3
