"""Private symbols of transformers are used in one file, and exist in the supported versions."""

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest
from conftest import make_model
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[3]
INTERNALS = "lit/packing/transformers_internals.py"
TESTED = SpecifierSet(">=5.23,<6")
SYMBOLS = {
    "the scaled dot product attention": "transformers.integrations.sdpa_attention:"
    "sdpa_attention_forward",
    "the repetition of heads": "transformers.integrations.sdpa_attention:repeat_kv",
    "Llama's norm": "transformers.models.llama.modeling_llama:LlamaRMSNorm",
    "OLMo 2's norm": "transformers.models.olmo2.modeling_olmo2:Olmo2RMSNorm",
    "Llama's MLP": "transformers.models.llama.modeling_llama:LlamaMLP",
}
ATTRIBUTES = ("_attn_implementation", "_name_or_path", "_can_set_attn_implementation")
"""Of a model's config, or of the model."""


@pytest.mark.parametrize("need", SYMBOLS)
def test_every_symbol_exists(need: str) -> None:
    module, _, name = SYMBOLS[need].partition(":")
    assert hasattr(import_module(module), name), (
        f"transformers has no {SYMBOLS[need]}, which lit needs for {need}; tested with {TESTED}"
    )


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_every_attribute_of_a_model_or_its_config_exists(attribute: str) -> None:
    model = make_model()
    assert hasattr(model, attribute) or hasattr(model.config, attribute), f"tested with {TESTED}"


def test_setup_cfg_allows_the_tested_versions_only() -> None:
    (allowed,) = re.findall(r"^ +transformers(.+)$", (ROOT / "setup.cfg").read_text(), re.M)
    assert SpecifierSet(allowed) == TESTED


def test_no_other_file_reads_a_private_attribute_of_a_model_or_its_config() -> None:
    found = []
    for path in (ROOT / "lit").rglob("*.py"):
        name = str(path.relative_to(ROOT))
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in ATTRIBUTES:
                found.append(name)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                "transformers.integrations"
            ):
                found.append(name)
    assert set(found) == {INTERNALS}
