"""NEFTune: noise on the embeddings, in training only."""

import torch
from torch import nn

from data.planning.batch import collate
from data.types import IGNORE, Example
from lit.model.embedding_noise import EmbeddingNoise

IDS = torch.randint(0, 50, (1, 11), generator=torch.Generator().manual_seed(0))


def test_the_noise_of_a_row_depends_on_its_own_length_and_is_added_in_training_only():
    embedding = nn.Embedding(50, 8)
    clean = embedding.weight.detach()[IDS]
    noise = EmbeddingNoise(embedding, alpha=5.0)
    noise.batch = collate([Example([1] * n, [IGNORE] * n) for n in (2, 9)])
    draws = torch.stack([embedding(IDS) - clean for _ in range(400)])
    for row, length in ((draws[:, 0, :2], 2), (draws[:, 0, 2:], 9)):
        largest = 5 / (length * 8) ** 0.5
        assert 0.99 * largest < row.abs().max() <= largest * 1.0001
        assert abs(row.mean()) < 0.02 * largest
    assert torch.equal(embedding.eval()(IDS), clean)


def test_an_alpha_of_zero_adds_no_noise():
    embedding = nn.Embedding(50, 8)
    EmbeddingNoise(embedding, alpha=0.0)
    assert not embedding._forward_hooks
