"""Answers under way in one batch, whose rows join and leave between calls of transformers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.cache_utils import DynamicLayer

from lit.answering.batching import pad_left, without_defaults


def is_plain(cache: object) -> bool:
    """Return whether a cache holds the keys and values of every token, and nothing else."""
    return (
        type(cache) is DynamicCache
        and not cache.offloading
        and all(type(layer) is DynamicLayer for layer in cache.layers)
    )


@dataclass
class Rows:
    """Prompts and their answers, aligned at the last token, which is not in the cache yet.

    Shape:
        ids, mask: (rows, columns); the mask is 0 at padding.
    """

    ids: Tensor
    mask: Tensor
    cache: DynamicCache | None

    def keep(self, rows: list[int]) -> None:
        """Drop all other rows."""
        assert self.cache is not None
        self.ids, self.mask = self.ids[rows], self.mask[rows]
        self.cache.batch_select_indices(torch.tensor(rows, device=self.ids.device))


class Steps:
    """What transformers generates between two ends of answers.

    Args:
        model: In eval mode.
        stops: The tokens that end an answer.
        pad: The token that fills shorter rows up.
    """

    def __init__(self, model: PreTrainedModel, stops: Sequence[int], pad: int) -> None:
        self.model, self.pad = without_defaults(model), pad
        self.first_end = StoppingCriteriaList([_FirstEnd(stops, model.device)])

    def begin(self, prompts: Sequence[Sequence[int]], choosing: LogitsProcessorList) -> Rows:
        """Return prompts with the first token of each answer."""
        return self.go_on(Rows(*pad_left(prompts, self.pad, self.model.device), None), choosing, 1)

    def go_on(self, rows: Rows, choosing: LogitsProcessorList, most: int) -> Rows:
        """Return rows with the same number of new tokens, until one ends or there are ``most``."""
        output = self.model.generate(  # type: ignore[operator]
            rows.ids,
            attention_mask=rows.mask,
            past_key_values=rows.cache,
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=most,
                pad_token_id=self.pad,
                return_dict_in_generate=True,
            ),
            logits_processor=choosing,
            stopping_criteria=self.first_end,
        )
        new = output.sequences.shape[1] - rows.ids.shape[1]
        mask = F.pad(rows.mask, (0, new), value=1)
        return Rows(output.sequences, mask, output.past_key_values)

    def join(self, parts: Sequence[Rows]) -> Rows:
        """Return all rows in one batch, which is as wide as the longest; it takes their caches."""
        columns = max(int(part.mask.sum(1).max()) for part in parts)
        padding = [columns - part.ids.shape[1] for part in parts]
        rows, *others = parts
        if not others and padding == [0]:
            return rows
        caches = [part.cache for part in parts if part.cache is not None]
        # Layer by layer, so that only one layer is held twice.
        for index, layers in enumerate(zip(*(cache.layers for cache in caches), strict=True)):
            keys, values = (
                torch.cat(
                    [
                        F.pad(getattr(layer, name), (0, 0, left, 0))  # a negative number cuts
                        for layer, left in zip(layers, padding, strict=True)
                    ]
                )
                for name in ("keys", "values")
            )
            for cache in caches:  # in each, so that the layers that were joined are free
                cache.layers[index] = _Layer(keys, values)
        ids, mask = (
            torch.cat([F.pad(x, (n, 0), value=value) for x, n in zip(each, padding, strict=True)])
            for each, value in (([p.ids for p in parts], self.pad), ([p.mask for p in parts], 0))
        )
        return Rows(ids, mask, rows.cache)


class _Layer(DynamicLayer):
    """Keys and values with room for more tokens; ``DynamicLayer`` copies them all for each token.

    Args:
        keys, values: (rows, heads, columns, size), on the device of the model.
    """

    ROOM = 32
    """Columns that are added when there is no room left."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values
        self.room: list[Tensor] = []

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Add the keys and values of new columns, and return those of all."""
        assert self.keys is not None
        assert self.values is not None
        start = self.keys.shape[2]
        end = start + key_states.shape[2]
        if not self.room or end > self.room[0].shape[2]:
            more = key_states.shape[2] + self.ROOM
            self.room = [F.pad(x, (0, 0, 0, more)) for x in (self.keys, self.values)]
        for room, new in zip(self.room, (key_states, value_states), strict=True):
            room[:, :, start:end] = new
        self.keys, self.values = (room[:, :, :end] for room in self.room)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows."""
        super().batch_select_indices(indices)
        self.room = []


class _FirstEnd(StoppingCriteria):
    """Ends all rows when the first one ends."""

    def __init__(self, stops: Sequence[int], device: torch.device) -> None:
        self.stops = torch.tensor(list(stops), dtype=torch.long, device=device)

    def __call__(self, input_ids: Tensor, scores: object) -> Tensor:
        """Return whether to end, (rows,)."""
        return torch.isin(input_ids[:, -1], self.stops).any().expand(len(input_ids))
