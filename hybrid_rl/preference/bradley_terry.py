"""Preference after Bradley and Terry (1952): the better of two answers wins with probability sigmoid(r_w - r_l)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid


def bradley_terry_loss(chosen_B: Tensor, rejected_B: Tensor) -> Tensor:
    """Negative log-likelihood of each choice [B], in nats: -log sigmoid(chosen - rejected).

    Scores count by their differences alone, so that their zero means nothing. Source: Ouyang et al., arXiv 2203.02155,
    equation 1, with one pair a prompt.
    """
    return -logsigmoid(chosen_B - rejected_B)
