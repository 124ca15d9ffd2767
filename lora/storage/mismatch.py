"""Why an adapter that another program made does not fit a model, by its names and shapes."""

from collections.abc import Iterable, Mapping

from torch import nn

from lora.messages import tr, tr_mark
from lora.paths import index_by_suffix
from lora.storage.peft_format import AdapterError, printable
from lora.storage.peft_tensors import PREFIX
from lora.targets import linear_layers

Shape = tuple[int, ...]
TOKEN_DIMENSIONS = {
    "weight": 0,
    "base_layer.weight": 0,
    "lora_embedding_A": 1,
    "lora_B.weight": 0,
    "lora_magnitude_vector": 0,
}
"""The dimension with one entry per token, by the tensor's name in an embedding or output head."""
MERGE = tr_mark(
    "merge it with PEFT (merge_and_unload), save that model with its tokenizer, and "
    "give the folder as the base"
)
GROWN = tr_mark(
    "Load the base with transformers, call resize_token_embeddings({}), put the adapter on, "
    "then merge it with PEFT (merge_and_unload), save that model with its tokenizer, and give "
    "the folder as the base"
)
"""What to do about another number of tokens, for ``tr`` and then ``str.format``."""
GREW = tr_mark(
    "the vocabulary grew: {path} has {new} tokens in the adapter and {tokens} in this base. "
    "{advice}"
)
SHRANK = tr_mark(
    "the vocabulary shrank: {path} has {new} tokens in the adapter and {tokens} in this base. "
    "{advice}"
)
LACKS = tr_mark("the file lacks {names}: {cause}")
UNKNOWN = tr_mark("the file has the unknown tensor {names}: {cause}")


def check_layer_kinds(model: nn.Module, names: Iterable[str]) -> None:
    """Check that an adapter adapts no layer of a kind that is not supported.

    Args:
        model: The base model.
        names: Paths of layers that have a low-rank update, or ends of such paths.

    Raises:
        AdapterError: One is an embedding, a convolution, the output head or another layer that is
            not linear; the message names the layers.
    """
    linear, layers = linear_layers(model), _leaves(model)
    index = index_by_suffix(layers.keys() - linear.keys())
    if found := sorted({path for name in names for path in index.get(name, ())}):
        path = found[0]
        raise AdapterError(
            tr(
                "it adapts a kind of layer that is not supported: {paths}, {kind}. "
                "Only linear layers other than the output head are adapted here: {merge}",
                paths=_first_of(path, len(found)),
                kind=_kind(model, layers[path]),
                merge=tr(MERGE),
            )
        )


def check_vocabulary(model: nn.Module, shapes: Mapping[str, Shape]) -> None:
    """Check that an adapter was made for as many tokens as the model has.

    Args:
        model: The base model.
        shapes: The shapes of the adapter's tensors by their names in the file.

    Raises:
        AdapterError: An embedding or an output head in it has another number of tokens; the
            message has both numbers.
    """
    ends = [layer for _, layer in _ends(model)]
    for path, layer in _leaves(model).items():
        if not any(layer is end for end in ends):
            continue
        for name, dimension in TOKEN_DIMENSIONS.items():
            shape = shapes.get(f"{PREFIX}{path}.{name}")
            tokens = layer.get_parameter("weight").shape[0]
            if shape is None or len(shape) <= dimension or shape[dimension] == tokens:
                continue
            text = GREW if shape[dimension] > tokens else SHRANK
            advice = tr(GROWN).format(shape[dimension])
            raise AdapterError(
                tr(text, path=path, new=shape[dimension], tokens=tokens, advice=advice)
            )


def check_names_and_shapes(
    stored: Mapping[str, Shape], needed: Mapping[str, Shape], settings: Mapping[str, object]
) -> None:
    """Check that an adapter's file has exactly the tensors that a model needs.

    Args:
        stored: The shapes of the file's tensors by their names.
        needed: The shapes of the tensors that the model needs.
        settings: The content of adapter_config.json.

    Raises:
        AdapterError: A name or a shape differs.
    """
    for text, names in (
        (LACKS, needed.keys() - stored.keys()),
        (
            UNKNOWN,
            stored.keys() - needed.keys(),
        ),
    ):
        if names:
            first = _first_of(printable(min(names), 200), len(names))
            raise AdapterError(tr(text, names=first, cause=made_for(settings)))
    for key, shape in needed.items():
        if (actual := stored[key]) != shape:
            raise AdapterError(
                tr(
                    "{key} has shape {actual}; the model needs {shape}: {cause}",
                    key=key,
                    actual=actual,
                    shape=shape,
                    cause=made_for(settings),
                )
            )


def adapted_paths(names: Iterable[str]) -> set[str]:
    """Return the paths of the layers that have a low-rank update in a file."""
    marks = (".lora_A.", ".lora_embedding_A")
    paths = (name.partition(mark)[0] for name in names for mark in marks if mark in name)
    return {path.removeprefix(PREFIX) for path in paths}


def made_for(settings: Mapping[str, object]) -> str:
    """Return the cause of names that do not fit: another model, with what to do."""
    base = settings.get("base_model_name_or_path")
    if isinstance(base, str) and base:
        return tr(
            "it was made for another model. Give the base that it was trained on, {base}",
            base=printable(base, 200),
        )
    return tr("it was made for another model. Give the base that it was trained on")


def _first_of(name: str, number: int) -> str:
    """Return the first of some names, and how many more there are."""
    if number == 1:
        return name
    return tr("{name} and {rest} more", name=name, rest=number - 1)


def _ends(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the layers that have one row per token, each with what it is called."""
    methods = {
        tr("an embedding"): "get_input_embeddings",
        tr("the output head"): "get_output_embeddings",
    }
    found = ((kind, getattr(model, name, lambda: None)()) for kind, name in methods.items())
    return [(kind, layer) for kind, layer in found if isinstance(layer, nn.Module)]


def _leaves(model: nn.Module) -> dict[str, nn.Module]:
    return {
        path: module
        for path, module in model.named_modules(remove_duplicate=False)
        if path and not list(module.children()) and list(module.parameters(recurse=False))
    }


def _kind(model: nn.Module, layer: nn.Module) -> str:
    named = next((kind for kind, end in _ends(model) if end is layer), None)
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return tr("a convolution ({kind})", kind=type(layer).__name__)
    return named or tr("a layer of type {kind}", kind=type(layer).__name__)
