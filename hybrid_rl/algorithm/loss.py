"""The loss, token by token: the estimator's policy loss, and the KL term.

The default is GRPO as MiniCPM-V 4.5 trains it (arXiv 2509.18154, section 2.4.3 and appendix A): no entropy bonus, and
no KL term unless asked for. PPO's clipped ratio with separate bounds (clip-higher, DAPO, arXiv 2503.14476).

Legend: N = trained tokens of a micro-batch, flattened.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hybrid_rl.algorithm.estimators import grpo
from hybrid_rl.algorithm.importance import Importance, truncated_importance
from hybrid_rl.algorithm.policy_loss import MAX_LOG_RATIO, TokenBatch
from hybrid_rl.protocols import Estimator


@dataclass(frozen=True, slots=True)
class TokenLoss:
    """Per-token terms, all [N].

    Attributes:
        policy: the estimator's policy loss.
        kl: k3 estimate of KL(policy || reference), nats.
        ratio: importance ratio pi / pi_old, detached.
        clipped: True where the clip is active.
        importance: weights that are in `policy`; None where there are none.
    """

    policy: Tensor
    kl: Tensor
    ratio: Tensor
    clipped: Tensor
    importance: Importance | None = None


def token_loss(
    logprobs_N: Tensor,
    old_logprobs_N: Tensor,
    advantages_N: Tensor,
    reference_logprobs_N: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    estimator: Estimator = grpo,
    responses_N: Tensor | None = None,
    importance_cap: float | None = None,
    start_logprobs_N: Tensor | None = None,
) -> TokenLoss:
    """Loss of each token under an estimator, and its k3.

    k3 = exp(d) - d - 1 with d = log pi_ref - log pi (Schulman, "Approximating KL divergence").

    Args:
        responses_N: which response each token belongs to; without it, all are one response.
        importance_cap: correct for what the policy has changed between sampling and the beginning of the step
            (`hybrid_rl.algorithm.importance`); None: the tokens are on-policy at its beginning.
        start_logprobs_N: under the policy that the step began with; without them, that is the policy as it is.
    """
    if responses_N is None:
        responses_N = torch.zeros_like(logprobs_N, dtype=torch.long)
    importance = None
    if importance_cap is not None:
        start_logprobs_N = logprobs_N.detach() if start_logprobs_N is None else start_logprobs_N
        importance = truncated_importance(start_logprobs_N, old_logprobs_N, importance_cap)
        old_logprobs_N = start_logprobs_N
    tokens = TokenBatch(logprobs_N, old_logprobs_N, advantages_N, responses_N)
    terms = estimator.policy_loss(tokens, clip_low=clip_low, clip_high=clip_high)
    difference_N = (reference_logprobs_N - logprobs_N).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return TokenLoss(
        policy=terms.loss if importance is None else importance.weight_N * terms.loss,
        kl=difference_N.exp() - difference_N - 1,
        ratio=terms.ratio,
        clipped=terms.clipped,
        importance=importance,
    )
