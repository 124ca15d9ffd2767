"""NEFTune: noise on the input embeddings, in training only."""

import torch
from torch import Tensor, nn


class EmbeddingNoise:
    """Adds noise to the output of an embedding, in training.

        e + alpha / sqrt(L d) * u,   u uniform in [-1, 1), L tokens in the row, d embedding size

    Args:
        embedding: The embedding; a forward hook is registered on it.
        alpha: 5 to 15 in the paper; 0 for no noise.

    Reference:
        Jain et al., NEFTune, 2023, arXiv:2310.05914.
    """

    def __init__(self, embedding: nn.Module, alpha: float) -> None:
        self.alpha = alpha
        self.lengths: list[int] = []
        """Tokens of each row in the next input, where several rows lie end to end."""
        self.handle = embedding.register_forward_hook(self._add) if alpha else None

    def _add(self, embedding: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
        if not embedding.training:
            return output
        tokens, size = output.shape[-2:]
        # Rows may also come one by one; each is then as long as its input.
        lengths = self.lengths if sum(self.lengths) == tokens else [tokens]
        counts = torch.tensor(lengths, device=output.device)
        strength = (self.alpha / (counts * size).sqrt()).repeat_interleave(counts)
        noise = torch.rand_like(output).mul_(2).sub_(1)
        return output + noise * strength[:, None].to(output.dtype)
