"""Drawing tokens by inverting the cumulative distribution: one uniform number a row, no loop over rows.

Legend: B = rows, V = vocabulary, N = blocks of the vocabulary, W = width of a block.
"""

from __future__ import annotations

import torch
from torch import Tensor

_WIDTH = 256
"""About the root of a large vocabulary, so that finding the block and finding the token in it cost alike."""


def sample_tokens(logprobs_BV: Tensor, uniforms_B: Tensor) -> tuple[Tensor, Tensor]:
    """Draw one token a row.

    The vocabulary is summed in blocks and only the block that the uniform number falls into is looked at token by
    token: apart from the probabilities themselves, nothing of the size of the vocabulary is made.

    Args:
        logprobs_BV: log-probabilities; -inf marks tokens that must not be drawn.
        uniforms_B: numbers in [0, 1).

    Returns:
        tokens_B and their log-probabilities, logprobs_B.
    """
    probs_BV = logprobs_BV.exp()
    V = probs_BV.shape[1]
    whole = V // _WIDTH * _WIDTH
    sums_BN = torch.cat(
        [
            probs_BV[:, :whole].unflatten(1, (whole // _WIDTH, _WIDTH)).sum(-1),
            probs_BV[:, whole:].sum(-1, keepdim=True),
        ],
        dim=1,
    )
    # Double precision: a float32 running sum over a large vocabulary loses the tail.
    blocks_BN = sums_BN.double().cumsum(-1)
    levels_B1 = uniforms_B.double()[:, None] * blocks_BN[:, -1:]
    block_B1 = _first_above(blocks_BN, levels_B1)
    below_B1 = torch.where(block_B1 > 0, blocks_BN.gather(1, (block_B1 - 1).clamp(min=0)), 0.0)

    places_BW = block_B1 * _WIDTH + torch.arange(_WIDTH, device=probs_BV.device)
    inside_BW = torch.where(places_BW < V, probs_BV.gather(1, places_BW.clamp(max=V - 1)), 0.0).double().cumsum(-1)
    tokens_B1 = block_B1 * _WIDTH + _first_above(inside_BW, levels_B1 - below_B1)
    return tokens_B1[:, 0], logprobs_BV.gather(-1, tokens_B1)[:, 0]


def _first_above(cumulative_BX: Tensor, levels_B1: Tensor) -> Tensor:
    """The first place whose cumulative value exceeds the level [B, 1]: never one of probability 0.

    A level that rounding has lifted to the total is taken to be just below it.
    """
    below_total_B1 = cumulative_BX[:, -1:] * (1 - 2**-52)
    return torch.searchsorted(cumulative_BX, torch.minimum(levels_B1, below_total_B1), right=True)
