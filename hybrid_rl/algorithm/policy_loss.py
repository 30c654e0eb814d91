"""Policy losses, token by token: what an estimator does with the importance ratio.

Legend: N = trained tokens of a micro-batch, flattened; a response's tokens are all in one micro-batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# exp() of a larger difference overflows float32. A token that far off is lost to the policy either way.
MAX_LOG_RATIO = 20.0
_MAX_LOG_SEQUENCE_RATIO = 10.0


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """What a policy loss is computed from, all [N].

    Attributes:
        logprobs: under the policy that is trained, nats; carries the gradient.
        old_logprobs: under the distribution that the tokens were drawn from.
        advantages: of each token.
        responses: which response each token belongs to, as numbers from 0.
    """

    logprobs: Tensor
    old_logprobs: Tensor
    advantages: Tensor
    responses: Tensor


@dataclass(frozen=True, slots=True)
class PolicyTerms:
    """All [N].

    Attributes:
        loss: carries the gradient.
        ratio: importance ratio of each token, or of its response, detached.
        clipped: True where the clip is active.
    """

    loss: Tensor
    ratio: Tensor
    clipped: Tensor


def clipped_loss(tokens: TokenBatch, clip_low: float, clip_high: float) -> PolicyTerms:
    """PPO's: -min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A). No dual clip."""
    return _clipped(_ratio(tokens), tokens.advantages, clip_low, clip_high)


def sequence_clipped_loss(tokens: TokenBatch, clip_low: float, clip_high: float) -> PolicyTerms:
    """GSPO's (arXiv 2507.18071): as PPO's, with one ratio a response, s = exp(mean over its tokens of log rho).

    Every token carries the gradient of its own log-probability, s A d log pi, so that the mean over a response is the
    gradient of s (eq. 14 to 17 of the paper); verl writes it the same way.
    """
    difference_N = tokens.logprobs.detach() - tokens.old_logprobs
    count = int(tokens.responses.max()) + 1 if len(tokens.responses) else 0
    sums = difference_N.new_zeros(count).index_add(0, tokens.responses, difference_N)
    sizes = difference_N.new_zeros(count).index_add(0, tokens.responses, torch.ones_like(difference_N))
    mean_N = (sums / sizes.clamp(min=1))[tokens.responses]
    log_ratio_N = tokens.logprobs - tokens.logprobs.detach() + mean_N
    ratio_N = log_ratio_N.clamp(max=_MAX_LOG_SEQUENCE_RATIO).exp()
    return _clipped(ratio_N, tokens.advantages, clip_low, clip_high)


def weighted_logprob_loss(tokens: TokenBatch, clip_low: float, clip_high: float) -> PolicyTerms:
    """CISPO's (MiniMax-M1, arXiv 2506.13585): -sg(clip(rho, 1 - clip_low, 1 + clip_high)) A log pi.

    The clip bounds the weight of a token and never removes its gradient. `clip_low` 1 is no lower bound.
    """
    ratio_N = _ratio(tokens).detach()
    weight_N = ratio_N.clamp(1 - clip_low, 1 + clip_high)
    return PolicyTerms(loss=-weight_N * tokens.advantages * tokens.logprobs, ratio=ratio_N, clipped=weight_N != ratio_N)


def _ratio(tokens: TokenBatch) -> Tensor:
    return (tokens.logprobs - tokens.old_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def _clipped(ratio_N: Tensor, advantages_N: Tensor, clip_low: float, clip_high: float) -> PolicyTerms:
    free_N = ratio_N * advantages_N
    bound_N = ratio_N.clamp(1 - clip_low, 1 + clip_high) * advantages_N
    return PolicyTerms(
        loss=-torch.minimum(free_N, bound_N), ratio=ratio_N.detach(), clipped=(bound_N < free_N).detach()
    )
