"""How far the text tokens' context is from the image's embedding: L1, or a contrast over the batch of all ranks."""

from __future__ import annotations

import torch
from torch import Tensor

from wsol_dist.processes.ranks import gather_rows, max_over_ranks, rank_of_group, sum_with_gradient


def contrastive_loss(
    context_BE: Tensor, target_BE: Tensor, *, temperature: float, both_ways: bool = True
) -> Tensor:
    """Cross entropy of the similarities S of the global batch against the identity; CLIP's loss, of fixed targets.

    The mean over ranks is the loss of the global batch, and averaging the ranks' gradients is its gradient, at any
    number of ranks with equally many images each. A rank holds its own rows of S only: the sums over a column come
    from all ranks as one number a column.

    Args:
        context_BE: of this rank's images, l2-normalised; gets gradient.
        target_BE: of the same images, l2-normalised; gets none.
        both_ways: also every target against all contexts; False is each context against all targets.
    """
    with torch.autocast(context_BE.device.type, enabled=False):
        every_GE = gather_rows(target_BE.float())
        logit_BG = context_BE.float() @ every_GE.T / temperature
        match_B = logit_BG.diagonal(offset=rank_of_group() * len(context_BE))
        of_contexts = logit_BG.logsumexp(dim=1).mean() - match_B.mean()
        if not both_ways:
            return of_contexts
        highest_G = max_over_ranks(logit_BG.amax(dim=0))
        sum_G = sum_with_gradient((logit_BG - highest_G).exp().sum(dim=0))
        of_targets = (sum_G.log() + highest_G).mean() - match_B.mean()
        return (of_contexts + of_targets) / 2


def l1_loss(context_BE: Tensor, target_BE: Tensor) -> Tensor:
    """The L1 distance of each image's context from its own target, mean over the batch."""
    return (context_BE.float() - target_BE.float()).abs().sum(dim=1).mean()
