"""The public names of the package can be imported, and loading them is lazy."""

import subprocess
import sys
from pathlib import Path

import pytest

import data


@pytest.mark.parametrize("name", data.__all__)
def test_a_public_name_can_be_imported(name: str) -> None:
    assert callable(getattr(data, name))
    assert name in dir(data)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'data' has no attribute 'nothing'"):
        data.nothing  # noqa: B018


def test_a_public_name_is_never_hidden_by_a_module() -> None:
    # Importing data.plan sets the attribute plan of the package.
    modules = {path.stem for path in Path(data.__file__).parent.iterdir()}
    assert "plan" in modules
    assert not modules & set(data.__all__)


def test_importing_the_package_loads_no_library() -> None:
    code = "import sys, data; print({'torch', 'datasets', 'transformers'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "set()", result.stderr
