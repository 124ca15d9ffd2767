"""What a package may import, how large a file may be, and what no product code may do."""

import ast
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from graphlib import TopologicalSorter
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

LAYERS: dict[str, list[set[str]]] = {
    "lora": [
        {"lora.messages"},
        {"lora.paths", "lora.replacement"},
        {"lora.families"},
        {"lora"},
        {"lora.variants"},
        {"lora.injection"},
        {"lora.optimizer"},
        {"lora.storage"},
    ],
    "data": [
        {"data.messages"},
        {"data.types", "data.text"},
        {"data.readers"},
        {"data.beginnings", "data.formats", "data.templates"},
        {"data.report"},
        {"data"},
        {"data.splitting", "data.planning"},
    ],
    "lit": [
        {"lit.messages"},
        {"lit.device", "lit.report", "lit.run", "lit.searching.records"},
        {"lit.distributed", "lit.fast_layers", "lit.packing"},
        {"lit.model"},
        {"lit.answering"},
        {"lit.measures"},
        {"lit.train"},
        {"lit.resume"},
        {"lit.settings"},
        {"lit.preflight"},
        {
            "lit.comparison",
            "lit.exporting",
            "lit.fitting",
            "lit.searching.outcome",
            "lit.searching.trials",
            "lit.serving.engine",
        },
        {"lit.diagnosis", "lit.searching", "lit.serving"},
        {"lit"},
    ],
}
"""The rooms of each package, the lowest layer first; the longest name that fits is a module's room.

A room may import itself and rooms of lower layers.
"""
MAX_LINES = 220
MAX_FILES = 12
"""The most Python files of a directory, not counting ``__init__.py`` and ``messages.py``."""
LIBRARY_OF_A_COMMAND = {"embedded": {"FetchError", "fetch", "download", "convert"}}
"""Public names that a command module defines besides ``main``.

``lit.embedded`` is a tool of one file, and benchmarks and tests use its steps one by one.
"""


def imported(node: ast.AST) -> Iterator[str]:
    """Yield the full names that a node imports, by statement or by call."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (f"{node.module or ''}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and called(node).endswith(("import_module", "__import__")):
        yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant))


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def option(node: ast.Call, name: str) -> object:
    """Return the literal that a call passes for a keyword, or its source text."""
    for keyword in node.keywords:
        if keyword.arg == name:
            value = keyword.value
            return value.value if isinstance(value, ast.Constant) else ast.unparse(value)
    return None


def roots(node: ast.AST) -> set[str]:
    return {name.split(".")[0] for name in imported(node)}


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def violations(rule: Callable[[ast.AST], object], sources: list[Path] = SOURCES) -> list[str]:
    """Return the lines of the product that break a rule."""
    return [
        f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        for path in sources
        for node in nodes(path)
        if rule(node)
    ]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


def imported_modules(path: Path) -> set[str]:
    """Return the modules of the product that a file imports, inside functions too."""
    names = {name for node in nodes(path) for name in imported(node)}
    return {
        name if name in MODULES else name.rpartition(".")[0]
        for name in names
        if name in MODULES or name.rpartition(".")[0] in MODULES
    }


def layer(module: str) -> tuple[int, str]:
    """Return the number and the name of a module's room."""
    rooms = {room: i for i, names in enumerate(LAYERS[module.split(".")[0]]) for room in names}
    name = max((room for room in rooms if f"{module}.".startswith(f"{room}.")), key=len)
    return rooms[name], name


def may_import(module: str, other: str) -> bool:
    (number, room), (other_number, other_room) = layer(module), layer(other)
    return room == other_room or other_number < number


def replaces_forward(node: ast.AST) -> bool:
    """Return whether a node binds a method to an instance, or assigns a ``forward``."""
    if isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node).endswith("MethodType"):
        return True
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        return node.attr == "forward"
    if isinstance(node, ast.Call) and called(node).endswith("setattr"):
        return any(isinstance(arg, ast.Constant) and arg.value == "forward" for arg in node.args)
    return False


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
    "no method of an instance is replaced": replaces_forward,
}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_imports_only_what_it_may_know(package: str) -> None:
    sources = [path for path in SOURCES if path.is_relative_to(ROOT / package)]
    assert sources
    assert not violations(lambda node: roots(node) & FORBIDDEN[package], sources)


@pytest.mark.parametrize("package", PACKAGES)
def test_rooms_import_one_way(package: str) -> None:
    wrong = [
        f"{module} imports {other}"
        for module, path in MODULES.items()
        # An __init__.py names what its package exports, and imports it on first use.
        if module.startswith(f"{package}.") and path.name != "__init__.py"
        for other in imported_modules(path)
        if other.startswith(f"{package}.") and not may_import(module, other)
    ]
    assert not wrong


def test_no_module_imports_itself_in_a_circle() -> None:
    files = {name: path for name, path in MODULES.items() if path.name != "__init__.py"}
    graph = {name: imported_modules(path) & files.keys() for name, path in files.items()}
    assert list(TopologicalSorter(graph).static_order())


def test_the_map_lists_every_package_in_the_order_of_imports() -> None:
    packages = [module_name(path) for path in SOURCES if path.name == "__init__.py"]
    expected: dict[str, int] = {}
    for layers in LAYERS.values():
        rooms = [[name for name in layer if name in packages] for layer in layers]
        numbered = enumerate(filter(None, rooms), 1)
        expected |= {name: number for number, names in numbered for name in names}
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    listed = re.findall(r"^\| (\d+) \| `([\w/]+)/` \| \S.*\|$", text, re.MULTILINE)
    assert expected.keys() == set(packages)
    assert {name.replace("/", "."): int(number) for number, name in listed} == expected
    assert len(listed) == len(packages)


def test_the_files_and_names_of_the_map_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    paths = set(re.findall(r"`((?:lora|data|lit|tests|benchmarks|docs)/[\w/.]+\.\w+)`", text))
    assert len(paths) > 30
    assert not [path for path in paths if not (ROOT / path).is_file()]
    for row in re.findall(r"^\|.*\|$", text, re.MULTILINE):
        # A name in a table is one of a file in the same row.
        files = [ROOT / path for path in re.findall(r"`(\w+/[\w/]+\.py)`", row)]
        source = "".join(file.read_text("utf-8") for file in files)
        for name in re.findall(r"`([\w.]+)\(\)`|`([A-Z_]{4,})`", row):
            last = "".join(name).rpartition(".")[2]
            assert re.search(rf"\b{last}\b", source), f"{last} is not in {files}"


def test_no_file_is_long() -> None:
    lines = {path: len(path.read_text("utf-8").splitlines()) for path in SOURCES}
    assert not {module_name(path): n for path, n in lines.items() if n > MAX_LINES}


def test_only_lit_device_asks_which_devices_there_are():
    asking = re.compile(r"torch\.(cuda|mps|backends\.mps)\.|getrusage|/proc/self|sysconf")
    elsewhere = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in SOURCES
        if path.relative_to(ROOT).parts[:2] not in (("lit", "device"), ("data", "sandbox.py"))
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if asking.search(line)
    ]
    assert not elsewhere


def test_no_directory_has_many_files() -> None:
    files = Counter(path.parent for path in SOURCES if path.stem not in ("__init__", "messages"))
    assert not {module_name(path): n for path, n in files.items() if n > MAX_FILES}


def test_a_command_defines_main_and_private_names_only() -> None:
    for path in (ROOT / "lit").glob("[!_]*.py"):
        if path.stem == "messages":
            continue
        body = ast.parse(path.read_text("utf-8")).body
        defined = {x.name for x in body if isinstance(x, ast.FunctionDef | ast.ClassDef)}
        public = {name for name in defined if not name.startswith("_")}
        assert public - {"main"} == LIBRARY_OF_A_COMMAND.get(path.stem, set()), path.name


UNUSED = {
    "lit.chat lit.compare lit.embedded lit.export lit.merge lit.quickstart lit.serve": "torch",
    "lit.comparison.comparison lit.comparison.report lit.answering.conversation lit.model.tuned "
    "lit.exporting.merging lit.exporting.peft_folder lit.serving.server": "lightning",
    "lit.comparison.comparison lit.comparison.report": "torchmetrics",
    "lit.comparison.comparison lit.serving.server": "datasets",
    "lit.serving.server lit.answering.conversation": "matplotlib",
    "lit.fitting.training lit.settings.arguments": "datasets",
    "lit.fitting.training data.stores": "torch.nn.attention.varlen torch.utils.tensorboard "
    "bitsandbytes peft transformers.trainer openpyxl sklearn",
}
"""Modules, and libraries that they must not import."""


@pytest.mark.parametrize("modules", UNUSED)
def test_a_command_starts_without_what_it_does_not_use(modules: str) -> None:
    libraries = UNUSED[modules].split()
    code = (
        f"import sys, {modules.replace(' ', ', ')}; "
        f"print(*(name for name in {libraries} if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert not done.stdout.split()


def test_bitsandbytes_is_imported_for_weights_and_for_optimizers_only() -> None:
    lines = violations(lambda node: "bitsandbytes" in roots(node))
    assert {line.split(":")[0] for line in lines} == {"lora/base.py", "lora/optimizer.py"}


@pytest.mark.parametrize("rule", RULES)
def test_product_code_keeps_the_rule(rule: str) -> None:
    assert not violations(RULES[rule])


def test_no_file_has_an_empty_name() -> None:
    assert not [path for path in SOURCES if path.stem in ("utils", "util", "helpers", "misc")]


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="no other worker computes")
def test_a_worker_of_this_suite_computes_in_one_thread():
    import torch

    # With two, small models take a hundred times as long: threads wait for each other's cores.
    assert torch.get_num_threads() == 1
