"""Drawing tokens by inverting the cumulative distribution: one uniform number a row, no loop over rows.

Legend: B = rows, V = vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sample_tokens(logprobs_BV: Tensor, uniforms_B: Tensor) -> tuple[Tensor, Tensor]:
    """Draw one token a row.

    Args:
        logprobs_BV: log-probabilities; -inf marks tokens that must not be drawn.
        uniforms_B: numbers in [0, 1).

    Returns:
        tokens_B and their log-probabilities, logprobs_B.
    """
    # Double precision: a float32 running sum over a large vocabulary loses the tail.
    cumulative_BV = logprobs_BV.exp().double().cumsum(-1)
    levels_B1 = uniforms_B.double()[:, None] * cumulative_BV[:, -1:]
    # right=True finds the first token whose cumulative value exceeds the level: never one of probability 0.
    tokens_B = torch.searchsorted(cumulative_BV, levels_B1, right=True)[:, 0]
    return tokens_B, logprobs_BV.gather(-1, tokens_B[:, None])[:, 0]
