"""Every model family: its packed rows equal single ones, or it goes row by row and says why."""

import pytest
import torch
from torch import Tensor

from data.planning.batch import collate
from data.types import IGNORE, Batch, Example
from lit.packing.attention import PACKED
from lit.packing.decoder import decoder_of
from lit.packing.hidden_states import hidden_states
from lit.packing.pack import pack
from lora.config import ConfigError
from tests.families.model import make_family
from tests.families.table import FAMILIES, FAST
from tests.start_checks import check_loss

LENGTHS = (9, 3, 14, 1, 17)
"""Longer than each window, chunk and convolution of the table, and shorter."""
over_families = pytest.mark.parametrize(
    "name",
    [pytest.param(x, marks=() if x in FAST else pytest.mark.families) for x in FAMILIES],
)


def make_rows(seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 320, (n,), generator=generator).tolist() for n in LENGTHS]


def flat(rows: list[list[int]]) -> Batch:
    return collate([Example(row, [IGNORE, *row[1:]]) for row in rows])


@over_families
@torch.no_grad()
def test_a_family_is_packed_or_says_why_not_and_computes_each_row_as_if_it_were_alone(name: str):
    model, plain = make_family(name), make_family(name)
    before = model.config._attn_implementation
    reason, expected = pack(model), FAMILIES[name].reason
    if expected is None:
        assert reason is None
        assert model.config._attn_implementation == PACKED
    else:
        assert reason is not None
        assert reason.startswith(f"{type(model).__name__} ")
        assert expected in reason
        assert "\n" not in reason
        assert model.config._attn_implementation == before
    rows = make_rows()
    batch = flat(rows)
    states: tuple[Tensor, ...] = hidden_states(model, batch)[0].split(LENGTHS)
    for row, state in zip(rows, states, strict=True):
        alone = decoder_of(plain)(input_ids=torch.tensor([row]), use_cache=False)[0][0]
        torch.testing.assert_close(state, alone, atol=3e-4, rtol=3e-4)
    if FAMILIES[name].refused:
        with pytest.raises(ConfigError, match=f"{type(model).__name__}.*cannot be trained yet"):
            check_loss(model, batch)
    else:
        check_loss(model, batch)
