"""The settings under data. reach what they are about."""

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.planning.plan import plan_epoch
from data.types import DataError
from lit.fit import main
from lit.settings.arguments import parse
from lit.train.datamodule import QADataModule
from lit.train.trainer_check import validation_limits

QUESTIONS = ["How warm is the bed?", "Why does it warp?", "Какой пластик прочнее?", "What is PLA?"]


def row(number: int) -> dict[str, str]:
    return {"prompt": f"{QUESTIONS[number % 4]} ({number})", "response": "So. " * (number % 9 + 1)}


def write(path: Path, *rows: dict[str, str]) -> str:
    text = "".join(json.dumps(fields, ensure_ascii=False) + "\n" for fields in rows)
    path.write_text(text, "utf-8")
    return str(path)


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Forty rows."""
    return write(tmp_path / "rows.jsonl", *map(row, range(40)))


def set_up(tiny_folder: Path, **settings: Any) -> QADataModule:
    module = QADataModule(base=str(tiny_folder), **settings)
    module.setup()
    return module


@pytest.mark.parametrize("spelled", ["[{a}, {b}]", '["{a}","{b}"]'])
def test_several_files_can_be_told_on_the_command_line(
    spelled: str, tiny_folder: Path, tmp_path: Path
) -> None:
    names = {name: write(tmp_path / f"{name}.jsonl", row(ord(name))) for name in "ab"}
    told = spelled.format(**names)
    arguments = parse(["--model.base", str(tiny_folder), "--data.path", told])
    assert arguments.config.data.path == list(names.values())


def test_columns_are_told_in_a_config_file(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = [{"вопрос": f"Почему {i}?", "ответ": "Так."} for i in range(8)]
    path = tmp_path / "rows.csv"
    lines = ["вопрос;ответ", *(f"{r['вопрос']};{r['ответ']}" for r in rows)]
    path.write_text("\n".join(lines), "cp1251")
    config = tmp_path / "run.yaml"
    config.write_text(
        f"model:\n  base: {tiny_folder}\n"
        f"data:\n  path: {path}\n  encoding: cp1251\n"
        "  columns:\n    prompt: вопрос\n    response: ответ\n"
        f"trainer:\n  max_steps: 1\n  accelerator: cpu\noutput_dir: {tmp_path / 'run'}\n",
        "utf-8",
    )
    assert main(["--config", str(config)]) == 0
    said = capsys.readouterr().out
    assert f"{path}: 8 rows read, 8 used\n       {path}: separated by semicolons\n" in said


def test_rows_held_out_come_back_with_their_places(tiny_folder: Path, file: str) -> None:
    module = set_up(tiny_folder, path=file, val_fraction=0.25)
    held = list(module.held_out())
    assert len(held) == len(module.val_rows) == 10
    for place, messages, _ in held:
        number = int(place.rpartition(":")[2]) - 1
        assert messages[0].content == row(number)["prompt"]


@pytest.mark.parametrize(("on_duplicate", "val"), [("leave_out", [7, 8]), ("keep", [3, 7, 8, 8])])
def test_validation_rows_that_train_are_left_out_unless_told(
    on_duplicate: str, val: list[int], tiny_folder: Path, file: str, tmp_path: Path
) -> None:
    other = [row(3), row(7) | {"response": "Otherwise."}, row(48), row(48)]
    module = set_up(
        tiny_folder,
        path=file,
        val_path=write(tmp_path / "val.jsonl", *other),
        on_duplicate=on_duplicate,
    )
    assert len(module.val_rows) == len(val)
    assert len(module.train_rows) == 40
    assert "1 validation questions also occur in training" in str(module.overlap) or (
        on_duplicate == "keep"
    )


def test_a_repeated_row_is_validated_on_once(tiny_folder: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", *[row(i % 10) for i in range(40)])
    module = set_up(tiny_folder, path=path, val_fraction=0.2)
    assert len(module.val_rows) == 2
    assert len(module.train_rows) == 32
    assert "24 training rows repeat another, 6 validation rows left out" in str(module.overlap)


def test_near_duplicates_stay_on_one_side(tiny_folder: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    texts = [" ".join(map(str, random.integers(10_000, 99_999, 40))) for _ in range(8)]
    rows = [{"prompt": f"Which {i}?", "response": texts[i // 4]} for i in range(32)]
    path = write(tmp_path / "rows.jsonl", *rows)
    module = set_up(tiny_folder, path=path, val_fraction=0.25, near_duplicates=0.6)
    held = set((module.val_rows // 4).tolist())
    assert sorted(module.val_rows) == [4 * group + i for group in sorted(held) for i in range(4)]
    apart = set_up(tiny_folder, path=path, val_fraction=0.25)
    assert len(set((apart.val_rows // 4).tolist())) > 2


def test_rows_of_another_file_that_are_near_are_named(
    tiny_folder: Path, file: str, tmp_path: Path
) -> None:
    near = row(8) | {"response": row(8)["response"] + "So."}
    val = write(tmp_path / "val.jsonl", near, {"prompt": "Wood?", "response": "Chisel it."})
    module = set_up(tiny_folder, path=file, val_path=val, near_duplicates=0.7)
    assert module.overlap.near_duplicates.tolist() == [0]
    assert len(module.val_rows) == 2


def test_rows_of_like_length_stand_together_when_asked(tiny_folder: Path, file: str) -> None:
    spread = {}
    for grouped in (False, True):
        arguments = parse(
            [
                *("--model.base", str(tiny_folder), "--data.path", file, "--data.batch_size", "4"),
                *("--data.group_by_length", str(grouped).lower(), "--trainer.accelerator", "cpu"),
            ]
        )
        arguments.instantiate()
        arguments.make_trainer(callbacks=[], logger=False)
        module = arguments.datamodule
        module.setup()
        made = module.plans.epoch(0)
        lengths = module.store.lengths[module.train_rows]
        groups = [lengths[made.rows(0, micro_step)] for micro_step in range(made.micro_steps)]
        spread[grouped] = float(np.mean([np.ptp(group) for group in groups]))
    assert spread[True] < spread[False] / 2


@pytest.mark.parametrize(
    ("train", "val", "settings", "tokens"),
    [
        ([100] * 40, [50] * 40, {}, 1024),  # four rows of 100 train at once
        ([20] * 40, [50] * 40, {}, 320),  # little memory: four times 4 * 20
        ([700] * 40, [50] * 400, {}, 2800),  # as many as train at once
        ([20] * 40, [50, 900], {}, 900),  # the longest row fits
        ([100] * 40, [50] * 40, {"max_tokens": 60}, 60),
        ([100] * 40, [50] * 20, {"world_size": 4}, 250),  # every rank has its share
    ],
)
def test_a_validation_computes_as_many_rows_at_once_as_fit_into_its_tokens(
    train: list[int], val: list[int], settings: dict[str, int], tokens: int
) -> None:
    given = {"batch_size": 4, "max_tokens": None, "world_size": 1} | settings
    limits = validation_limits(np.array(val), np.array(train), **given)
    assert limits["max_tokens"] == tokens
    assert limits["batch_size"] == len(val) or len(val) < 4
    plan = plan_epoch(np.array(val), np.array(val), **limits)
    assert sorted(plan.order.tolist()) == list(range(len(val)))
    assert min(len(plan.rows(rank, 0)) for rank in range(plan.world_size)) > 0


def test_rows_that_all_train_leave_nothing_to_validate_on(tiny_folder: Path, file: str) -> None:
    with pytest.raises(DataError, match="every validation row is also a training row"):
        set_up(tiny_folder, path=file, val_path=file)


def test_a_students_first_hour_has_one_refusal_that_can_be_pasted(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Issue 16: what Excel saves in Russia, with cells of two lines and empty ones."""
    rows = [f'"Почему {i}?\nСтол холодный; сопло высоко";"Нагрейте; до {i}.";' for i in range(24)]
    rows[3:3] = ["Пустой ответ?;;", ";;"]
    path = tmp_path / "rows.csv"
    path.write_bytes("\r\n".join(["Вопрос;Ответ;", *rows, ""]).encode("cp1251"))
    command = [
        *("--model.base", str(tiny_folder), "--data.path", str(path), "--trainer.max_steps", "1"),
        *("--trainer.accelerator", "cpu", "--output_dir", str(tmp_path / "run")),
    ]
    assert main(command) == 2
    refusal = capsys.readouterr().err.splitlines()
    _, _, flags = refusal[-1].partition(" add ")
    assert flags == "--data.encoding cp1251 --data.on_bad_row skip"
    assert main([*command, *shlex.split(flags)]) == 0
    said = capsys.readouterr().out
    assert "25 rows read, 24 used, 1 bad and skipped" in said
    assert "separated by semicolons; 1 empty records passed over" in said


def test_a_folder_with_split_names_validates_on_its_own_rows(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """Issue 16, 6."""
    write(tmp_path / "train.jsonl", *map(row, range(8)))
    write(tmp_path / "dev.jsonl", *map(row, range(20, 23)))
    write(tmp_path / "test.jsonl", row(99))
    folder = str(tmp_path)
    for settings in ({"path": folder}, {"path": f"{folder}/train.jsonl", "val_path": folder}):
        module = set_up(tiny_folder, **settings)
        assert (len(module.train_rows), len(module.val_rows)) == (8, 3)
