"""The table of faults matches the code and the tests; ``make mutants`` plants the faults."""

import ast
from collections import Counter
from pathlib import Path

import pytest

from tests.mutants.faults import Mutant, plant
from tests.mutants.table import MUTANTS

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.file}: {m.replacement}")
def test_a_fault_can_be_planted_and_its_tests_exist(mutant: Mutant) -> None:
    text = (ROOT / mutant.file).read_text(encoding="utf-8")
    # Also raises if the line does not appear once, or if the result does not compile.
    assert plant(text, mutant) != text
    assert mutant.tests
    for test in mutant.tests:
        file, _, function = test.partition("::")
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert not function or function in names, f"{file} has no {function}"


def test_there_are_60_different_faults_and_5_in_every_area() -> None:
    assert len({mutant[1:4] for mutant in MUTANTS}) == len(MUTANTS) >= 60
    assert min(Counter(mutant.area for mutant in MUTANTS).values()) >= 5
