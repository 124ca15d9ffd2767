"""The public names of ``lora``, which are imported when they are first used."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import lora


def run(code: str) -> None:
    """Run code in a new Python process; raise if it fails."""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_package_does_not_load_torch() -> None:
    run("import sys, lora; assert 'torch' not in sys.modules")


def test_the_lazy_names_are_the_public_names() -> None:
    assert lora._MODULES.keys() == set(lora.__all__)
    assert sorted(lora.__all__) == sorted(set(lora.__all__))


@pytest.mark.parametrize("name", lora.__all__)
def test_a_public_name_is_the_object_of_its_module_and_never_a_module(name: str) -> None:
    value = getattr(lora, name)
    assert not isinstance(value, ModuleType)
    assert value is getattr(sys.modules[f"lora.{lora._MODULES[name]}"], name)


def test_no_public_name_is_that_of_a_module() -> None:
    # Importing a module sets an attribute of that name on its package.
    folder = Path(lora.__file__).parent
    modules = {path.stem for path in folder.iterdir()}
    assert "layer" in modules
    assert not modules & set(lora.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'lora' has no attribute 'injct'"):
        lora.injct  # noqa: B018
