"""Models that see or hear: their text part trains, alone, under the names that other tools load."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoConfig, PreTrainedModel
from wrappers import WRAPPERS, make_wrapper

from data.planning.batch import collate
from lit.model.architecture import model_class
from lit.model.loading import load_weights
from lit.model.loss import summed_loss
from lit.model.start_checks import check_model
from lit.packing.probe import probe_examples
from lora.base import is_quantized
from lora.config import ConfigError, LoRAConfig
from lora.families.decoder import text_path
from lora.injection import inject, lora_layers, merge, trainable_parameters
from lora.storage.adapter import load_adapter, save_adapter
from lora.targets import linear_layers
from tests.start_checks import check_causal, check_loss

ALL = LoRAConfig(r=2, lora_alpha=4, target_modules="all-linear")
IDS = torch.arange(20, 29)[None]
NEVER_CALLED = {"mllama": ".layers.1."}
"""A block of the text part that only pictures reach."""
over_wrappers = pytest.mark.parametrize("kind", WRAPPERS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wrappers")


@pytest.fixture
def folder(kind: str, folders: Path) -> Path:
    """The folder of a small model of the type."""
    path = folders / kind
    if not path.exists():
        make_wrapper(kind).save_pretrained(path)
    return path


def load(folder: Path, quantize: str | None = None) -> PreTrainedModel:
    return load_weights(str(folder), {}, torch.float32, quantize, torch.device("cpu"))


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=IDS).logits


def train_a_step(model: PreTrainedModel) -> None:
    batch = collate(probe_examples(320))
    summed_loss(model, batch).backward()
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            # B is zero at first, so that A has no gradient in the first step.
            parameter.add_(torch.randn_like(parameter), alpha=0.02)


@over_wrappers
def test_layers_of_the_text_part_are_adapted_and_no_others(kind, folder):
    model = load(folder)
    part = text_path(model)
    outside = [
        path for path, module in model.named_modules() if isinstance(module, torch.nn.Linear)
    ]
    outside = [path for path in outside if not path.startswith(part + ".")]
    assert part
    assert outside  # the head, and in most types a tower or a projector
    assert all(path.startswith(part + ".") for path in inject(model, ALL))


@over_wrappers
def test_its_loss_is_that_of_its_own_logits_and_it_reads_forward_only(kind, folder):
    model = load(folder)
    check_loss(model, collate(probe_examples(320)))
    check_causal(model, IDS)


@over_wrappers
def test_peft_and_a_merged_model_compute_what_the_trained_one_computes(kind, folder, tmp_path):
    model = load(folder)
    inject(model, ALL)
    before = logits(model)
    train_a_step(model)
    reached = {
        path
        for path, layer in lora_layers(model)
        if all(value.grad is not None for value in layer.parameters(recurse=False))
    }
    skipped = {path for path, _ in lora_layers(model)} - reached
    assert all(NEVER_CALLED[kind] in path for path in skipped)
    tuned = logits(model)
    assert (tuned - before).norm() > 0.01 * before.norm()
    save_adapter(model, tmp_path, str(folder))
    loaded = load(folder)
    load_adapter(loaded, tmp_path)
    assert torch.equal(logits(loaded), tuned)
    config = AutoConfig.from_pretrained(folder)
    base = model_class(config, kind).from_pretrained(folder)
    theirs = PeftModel.from_pretrained(base, tmp_path)
    for name, found in (("PEFT", logits(theirs)), ("merged", logits(merge(model)))):
        assert (found - tuned).norm() < 1e-4 * tuned.norm(), name


@pytest.mark.parametrize("kind", ["gemma3", "mistral3", "qwen3_5"])
def test_only_the_text_part_is_quantized(kind, folder):
    model = load(folder, "nf4")
    text = linear_layers(model)
    assert text
    for path, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            assert is_quantized(module) == (path in text), path


def test_a_model_that_sees_its_prompt_in_both_directions_is_refused():
    with pytest.raises(ConfigError, match="reads a text in both directions"):
        check_causal(make_wrapper("paligemma"), IDS)
    model = make_wrapper("paligemma")
    with pytest.raises(ConfigError, match="reads a text in both directions"):
        check_model(lambda f, *args: f(model, *args), model.config, model.device, None, None)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("t5", "reads a text with an encoder"),
        ("bart", "reads a text with an encoder"),
        ("florence2", "reads a text with an encoder"),
        ("vit", "does not know as a language model"),
        ("clip", "does not know as a language model"),
    ],
)
def test_a_type_that_does_not_continue_a_text_is_refused_by_name(kind, reason):
    with pytest.raises(ConfigError, match=reason) as error:
        model_class(AutoConfig.for_model(kind), "some/model")
    assert kind in str(error.value)
    assert "Take a model" in str(error.value)
