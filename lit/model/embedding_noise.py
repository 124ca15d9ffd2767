"""NEFTune: noise on the input embeddings, in training only."""

import math

import torch
from torch import Tensor, nn

from data.types import Batch


class EmbeddingNoise:
    """Adds noise to the output of an embedding, in training.

        e + alpha / sqrt(L d) * u,   u uniform in [-1, 1), L tokens in the row, d embedding size

    A beginning that rows share gets noise once, and L is of the longest of these rows.

    Args:
        embedding: The embedding; a forward hook is registered on it.
        alpha: 5 to 15 in the paper; 0 for no noise.

    Reference:
        Jain et al., NEFTune, 2023, arXiv:2310.05914.
    """

    def __init__(self, embedding: nn.Module, alpha: float) -> None:
        self.alpha = alpha
        self.batch: Batch | None = None
        """The next input, where several rows lie end to end."""
        self.handle = embedding.register_forward_hook(self._add) if alpha else None

    def remove(self) -> None:
        """Take the hook off the embedding."""
        if self.handle is not None:
            self.handle.remove()

    def _add(self, embedding: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
        if not embedding.training:
            return output
        tokens, size = output.shape[-2:]
        noise = torch.rand_like(output).mul_(2).sub_(1)
        # Rows may also come one by one; each is then as long as its input.
        if self.batch is None or sum(self.batch.lengths) != tokens:
            return output + noise * (self.alpha / math.sqrt(tokens * size))
        counts = self.batch.cu_seqlens.diff()
        longest = _longest_rows(self.batch, counts)
        # With the size of its output, the device need not be asked for it.
        lengths = longest.repeat_interleave(counts, output_size=tokens)
        strength = self.alpha / (lengths * size).sqrt()
        return output + noise * strength[:, None].to(output.dtype)


def _longest_rows(batch: Batch, counts: Tensor) -> Tensor:
    """Return the tokens of the longest row that has each segment, from the segments' own tokens."""
    if not batch.paths:
        return counts
    longest = [0] * len(batch.lengths)
    for path, length in zip(batch.paths, batch.row_lengths, strict=True):
        for segment in path:
            longest[segment] = max(longest[segment], length)
    return torch.tensor(longest).to(counts, non_blocking=True)
