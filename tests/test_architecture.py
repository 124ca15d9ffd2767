"""What a package may know, and what none may do."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("lora", "data", "lit")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
FORBIDDEN = {
    "lora": {"lit", "data", "lightning", "pytorch_lightning", "transformers"},
    "data": {"lit", "lora", "lightning", "pytorch_lightning"},
}
EXECUTING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def imported(node: ast.AST) -> Iterator[str]:
    """The full names that a node imports, by statement or by call."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (f"{node.module or ''}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and called(node).endswith(("import_module", "__import__")):
        yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant))


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def option(node: ast.Call, name: str) -> object:
    """The literal that a call gives for a keyword; its source text where it is no literal."""
    for keyword in node.keywords:
        if keyword.arg == name:
            value = keyword.value
            return value.value if isinstance(value, ast.Constant) else ast.unparse(value)
    return None


def roots(node: ast.AST) -> set[str]:
    return {name.split(".")[0] for name in imported(node)}


def found(wrong: Callable[[ast.AST], object], sources: list[Path] = SOURCES) -> list[str]:
    """The places in the product where something wrong stands."""
    return [
        f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        for path in sources
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if wrong(node)
    ]


RULES: dict[str, Callable[[ast.AST], object]] = {
    "imports are absolute": lambda node: isinstance(node, ast.ImportFrom) and node.level,
    "nothing is unpickled": lambda node: (
        roots(node) & EXECUTING
        or (isinstance(node, ast.Call) and option(node, "allow_pickle") not in (None, False))
    ),
    "torch.load reads weights only": lambda node: (
        "torch.load" in imported(node)
        or (
            isinstance(node, ast.Call)
            and called(node) == "torch.load"
            and option(node, "weights_only") is not True
        )
    ),
    "no remote code is trusted": lambda node: (
        (isinstance(node, ast.Call) and option(node, "trust_remote_code") not in (None, False))
        or (isinstance(node, ast.Constant) and node.value == "trust_remote_code")
    ),
}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_imports_only_what_it_may_know(package: str) -> None:
    sources = [path for path in SOURCES if path.is_relative_to(ROOT / package)]
    assert sources
    assert not found(lambda node: roots(node) & FORBIDDEN[package], sources)


def test_bitsandbytes_is_known_for_weights_and_for_optimizers_only() -> None:
    places = found(lambda node: "bitsandbytes" in roots(node))
    assert {place.split(":")[0] for place in places} == {"lora/base.py", "lora/optimizer.py"}


@pytest.mark.parametrize("rule", RULES)
def test_product_code_keeps_the_rule(rule: str) -> None:
    assert not found(RULES[rule])


def test_no_file_is_named_for_nothing() -> None:
    assert not [path for path in SOURCES if path.stem in ("utils", "util", "helpers", "misc")]
