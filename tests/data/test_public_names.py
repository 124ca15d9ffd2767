"""The public names of the package are loaded on first use, and suffice to make a batch."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

import data

ROOT = Path(data.__file__).parents[1]


@pytest.mark.parametrize("name", data.__all__)
def test_a_public_name_can_be_imported(name: str) -> None:
    assert callable(getattr(data, name))
    assert name in dir(data)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'data' has no attribute 'nothing'"):
        data.nothing  # noqa: B018


def test_a_public_name_is_never_hidden_by_a_module() -> None:
    # Importing a module of a package sets the attribute of that name.
    modules = {path.stem for path in Path(data.__file__).parent.iterdir()}
    assert "planning" in modules
    assert not modules & set(data.__all__)


def test_importing_the_package_loads_no_library() -> None:
    code = "import sys, data; print({'torch', 'datasets', 'transformers'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "set()", result.stderr


def test_the_example_of_the_docs_makes_a_batch(tokenizer: PreTrainedTokenizerFast) -> None:
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {"tokenizer": tokenizer}
    corpus = ROOT / "data" / "corpora" / "electronics.ru.csv"
    exec(code.replace("questions.csv", str(corpus)), names)
    assert isinstance(names["batch"], data.Batch)
    assert len(names["batch"].cu_seqlens) == 5
