"""Layers that an adapter cannot reach, and routers, by the names that transformers gives them.

An adapter takes the place of a layer and acts when the model calls it. Some layers are never
called: the model's code reads their weight and computes with it, or the layer waits for an input
that rows of text do not have. Others are called, and no gradient comes back.
``tests/lora/test_reach.py`` compares the tables with transformers' code, and
``lit.model.preparation`` checks every adapter of a run by a forward pass.
"""

from torch import nn

from lora.messages import tr
from lora.replacement import Replacement

MAMBA = ("x_proj", "dt_proj", "out_proj")
MAMBA2 = ("out_proj",)
READ_DIRECTLY: dict[str, tuple[str, ...]] = {
    # In training, the kernels of state-space models take these weights as they are. Without the
    # kernels some of them are called, so that an adapter would work on one machine only.
    "MambaMixer": MAMBA,
    "FalconMambaMixer": MAMBA,
    "JambaMambaMixer": ("dt_proj",),
    "Mamba2Mixer": MAMBA2,
    "BambaMixer": MAMBA2,
    "FalconH1Mixer": MAMBA2,
    "GraniteMoeHybridMambaLayer": MAMBA2,
    "NemotronHMamba2Mixer": MAMBA2,
    "Zamba2MambaMixer": MAMBA2,
    # In training, one weight is clamped in place and one before its product.
    "Gemma3nTextAltUp": ("prediction_coefs", "correction_coefs"),
    "LongcatFlashTopkRouter": ("classifier",),
    # In generation with a cache.
    "LSHSelfAttention": ("query_key", "value"),
}
"""Names of layers whose weight the code of a class reads, by the class that holds them."""
WAITING_CLASSES = {"MllamaCrossAttentionDecoderLayer", "IdeficsGatedCrossAttentionLayer"}
"""Blocks that are called only if there is a picture."""
WAITING_NAMES = {"encoder_attn", "cross_attn", "crossattention"}
"""Attention to an encoder or a picture, which rows of text do not have."""
INDEXER = "Indexer"
"""In the names of classes that only choose which tokens attention sees, which has no gradient."""
LINEAR_CLASSES = {"FalconLinear"}
"""Subclasses of ``nn.Linear`` that compute what it computes."""


def unreached_layers(model: nn.Module) -> dict[str, str]:
    """Return, by path, why no adapter can learn at a layer, for each such layer that is known.

    Paths of the dict need not exist in the model, and need not be those of linear layers.
    """
    found: dict[str, str] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        inside = f"{path}." if path else ""
        if isinstance(module, Replacement):
            module = module.original()
        classes = {base.__name__ for base in type(module).__mro__}
        for name in sorted(classes & READ_DIRECTLY.keys()):
            why = tr(
                "{kind} reads its weight without calling the layer", kind=type(module).__name__
            )
            found |= {f"{inside}{child}": why for child in READ_DIRECTLY[name]}
        if why := _why_no_gradient(path, classes, type(module).__name__):
            found |= {f"{inside}{child}": why for child, _ in module.named_modules() if child}
    return found


def _why_no_gradient(path: str, classes: set[str], kind: str) -> str:
    """Return why no layer inside a module gets a gradient, or an empty text."""
    if classes & WAITING_CLASSES or path.rpartition(".")[2] in WAITING_NAMES:
        return tr("{kind} is not called for rows of text alone", kind=kind)
    if any(INDEXER in name for name in classes):
        return tr("{kind} only chooses tokens for attention, which has no gradient", kind=kind)
    return ""


def is_router(path: str) -> bool:
    """Return whether a layer chooses or weighs experts, by the names in its path."""
    return any(
        part in ("gate", "wg") or "router" in part or part.endswith("expert_gate")
        for part in path.split(".")
    )
