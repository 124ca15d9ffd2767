"""Rotary positions that depend on the length of the whole input."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from transformers import PretrainedConfig

LENGTH_DEPENDENT = ("longrope", "dynamic")
"""Kinds of rotary positions whose frequencies depend on the longest row of a batch."""


def rotary_limit(config: PretrainedConfig) -> int | None:
    """Return the tokens above which rows of different lengths have different frequencies.

    Args:
        config: A model's config.

    Returns:
        None for the usual rotary positions, which depend on a token's own position alone.
    """
    text = config.get_text_config()
    limits = [
        parameters.get("original_max_position_embeddings") or text.max_position_embeddings
        for parameters in _rotary_parameters(text)
        if any(kind in str(parameters.get("rope_type")) for kind in LENGTH_DEPENDENT)
    ]
    return min(limits, default=None)


def rotate_alike(config: PretrainedConfig, lengths: Sequence[int]) -> bool:
    """Return whether rows of these lengths have the same frequencies in one batch as alone."""
    limit = rotary_limit(config)
    return limit is None or max(lengths) <= limit or len(lengths) == 1


def _rotary_parameters(config: PretrainedConfig) -> Iterator[Mapping[str, Any]]:
    """Yield the parameters of each kind of layer, or of all layers."""
    parameters = getattr(config, "rope_parameters", None) or {}
    if "rope_type" in parameters:
        yield parameters
    else:
        yield from (value for value in parameters.values() if isinstance(value, Mapping))
