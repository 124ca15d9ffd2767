"""Adapters that PEFT puts on other layers than those that were trained."""

from transformers import PreTrainedModel

from lit.messages import tr_later
from lit.packing.transformers_internals import conversion_pattern
from lora.injection import lora_layers

# PEFT 0.21 reads adapters of families whose experts were single layers in older transformers, and
# takes these names for experts wherever they are: in dense blocks and shared experts too.
EXPERT_NAMES = {
    "mixtral": {"gate", "w1", "w2", "w3"},
    "qwen2_moe": {"gate", "gate_proj", "up_proj", "down_proj"},
}
RENAMED = {"laguna", "inkling2_text"}
"""Families whose tensors PEFT looks for under other names than those of the model."""


def misread_by_peft(model: PreTrainedModel) -> list[str]:
    """Return the last names of adapted layers that PEFT reads as other layers, sorted."""
    names = {path.rpartition(".")[2] for path, _ in lora_layers(model)}
    if model.config.model_type in RENAMED:
        return sorted(names)
    return sorted(names & EXPERT_NAMES.get(conversion_pattern(model) or "", set()))


def describe_misreading(model: PreTrainedModel) -> str:
    """Return what a person must know before loading the adapter in PEFT; empty for most models."""
    if not (names := misread_by_peft(model)):
        return ""
    return tr_later(
        "PEFT 0.21 reads {names} of {model_type} as other layers, and computes something "
        "else with this adapter. Merge it first: python -m lit.merge",
        names=", ".join(names),
        model_type=model.config.model_type,
    )
