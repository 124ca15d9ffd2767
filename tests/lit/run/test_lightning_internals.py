"""The private symbols of Lightning that lit uses: they exist, and one file uses them."""

import ast
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from lightning.fabric.utilities import rank_zero
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy, launchers
from packaging.requirements import Requirement
from packaging.version import Version

from lit.run import lightning_internals as internals

TESTED = "lightning>=2.6.6,<2.7"
"""The versions that the table below was tested with; setup.cfg asks for the same."""
ROOT = Path(__file__).parents[3]
INTERNALS = Path(internals.__file__)
OVERRIDES = {("lit/distributed/sharding.py", "_configure_launcher")}
"""Methods of our subclasses that Lightning calls by a private name."""
OWNERS = ("trainer", "loop", "strategy", "connector", "launcher", "callback", "logger", "fabric")
"""Words in the names of objects of Lightning."""


@pytest.fixture(scope="module")
def trainer() -> L.Trainer:
    return L.Trainer(accelerator="cpu", logger=False, barebones=True)


SYMBOLS: dict[str, Callable[[L.Trainer], Any]] = {
    "_accelerator_connector": lambda trainer: trainer,
    "_data_fetcher": lambda trainer: trainer.fit_loop,
    "_device_mesh": lambda _: ModelParallelStrategy(),
    "_first_loop_iter": lambda trainer: trainer._logger_connector,
    "_get_rank": lambda _: rank_zero,
    "_last_global_step_saved": lambda _: ModelCheckpoint(),
    "_launcher": lambda _: ModelParallelStrategy(),
    "_logger_connector": lambda trainer: trainer,
    "_monitor_candidates": lambda _: ModelCheckpoint,
    "_save_last_checkpoint": lambda _: ModelCheckpoint,
    "_save_topk_checkpoint": lambda _: ModelCheckpoint,
    "_setup_distributed": lambda _: ModelParallelStrategy,
    "_should_accumulate": lambda trainer: trainer.fit_loop,
    "_should_check_val_fx": lambda trainer: trainer.fit_loop.epoch_loop,
    "_SubprocessScriptLauncher": lambda _: launchers,
}
"""Each private symbol, and the object that has it."""
PUBLIC_SYMBOLS: dict[str, Callable[[L.Trainer], Any]] = {
    "cluster_environment": lambda trainer: trainer._accelerator_connector,
    "procs": lambda _: launchers._SubprocessScriptLauncher(None, 1, 1),  # type: ignore[arg-type]
    "restarting": lambda trainer: trainer.fit_loop.epoch_loop.val_loop,
    "run": lambda trainer: trainer.fit_loop.epoch_loop.val_loop,
}
"""Public attributes of private objects."""
OVERRIDDEN: dict[str, Callable[[L.Trainer], Any]] = {
    name: lambda _: ModelParallelStrategy for _, name in OVERRIDES
}
KNOWN = SYMBOLS.keys() | OVERRIDDEN.keys()


def test_the_installed_lightning_is_one_that_the_table_was_tested_with() -> None:
    installed = version("lightning")
    assert Version(installed) in Requirement(TESTED).specifier, (
        f"lightning {installed} is installed, and lit/run/lightning_internals.py was tested with "
        f"{TESTED}: read what changed, run these tests, and widen the range here and in setup.cfg"
    )
    assert f"\n    {TESTED}\n" in (ROOT / "setup.cfg").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SYMBOLS | PUBLIC_SYMBOLS | OVERRIDDEN)
def test_lightning_has_the_symbol(name: str, trainer: L.Trainer) -> None:
    owner = (SYMBOLS | PUBLIC_SYMBOLS | OVERRIDDEN)[name](trainer)
    kind = owner if isinstance(owner, type) else type(owner)
    assert hasattr(owner, name), (
        f"lightning {version('lightning')} has no {name} in {kind.__name__}: "
        f"lit/run/lightning_internals.py needs it, and was tested with {TESTED}"
    )


def test_a_checkpoint_holds_the_position_under_the_keys_that_are_read(trainer: L.Trainer) -> None:
    checkpoint = {"loops": {"fit_loop": internals.fit_position(trainer)}}
    assert internals.batch_progress(checkpoint) == (0, 0)
    internals.shift_batch_progress(checkpoint, 3)
    assert internals.batch_progress(checkpoint) == (0, 3)
    trainer.fit_loop.load_state_dict(checkpoint["loops"]["fit_loop"])
    assert trainer.fit_loop.epoch_loop.batch_progress.current.ready == 3
    assert trainer.fit_loop.epoch_loop.batch_progress.current.completed == 3


def test_the_table_lists_each_private_symbol_that_the_file_uses() -> None:
    assert {name for _, name in private_names(INTERNALS)} == SYMBOLS.keys()


def test_no_other_file_of_lit_uses_a_private_symbol_of_lightning() -> None:
    others = [path for path in (ROOT / "lit").rglob("*.py") if path != INTERNALS]
    assert len(others) > 50
    used = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in others
        for _, name in private_names(path)
    }
    assert used == OVERRIDES, (
        "a private symbol of Lightning: give the need a function in lit/run/lightning_internals.py"
    )


@pytest.mark.parametrize(
    "line",
    [
        "trainer._logger_connector",
        "trainer.fit_loop._should_accumulate()",
        "self.trainer._accelerator_connector",
        "from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher",
        "class A(Strategy):\n    def f(self):\n        return self._launcher",
        "class A(Strategy):\n    def f(self):\n        self._launcher = None",
        "class A(Strategy):\n    def _setup_distributed(self): ...",
        "getattr(trainer, '_logger_connector')",
    ],
)
def test_a_use_of_a_private_symbol_is_seen(line: str, tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(line)
    assert list(private_names(path))


def private_names(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and name of each private symbol of Lightning that a file uses.

    These are imports, attributes of objects that are named like Lightning's, and everything with a
    name of the tables above; in ``INTERNALS`` all private attributes.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lightning"):
            yield from ((node.lineno, name.name) for name in node.names if private(name.name))
        elif isinstance(node, ast.Attribute) and private(node.attr):
            owner = ast.unparse(node.value).lower().replace("self", "")
            if path == INTERNALS or node.attr in KNOWN or any(word in owner for word in OWNERS):
                yield node.lineno, node.attr
        elif isinstance(node, ast.FunctionDef) and node.name in KNOWN:
            yield node.lineno, node.name
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in KNOWN:
            yield node.lineno, node.value


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")
