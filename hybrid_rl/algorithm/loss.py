"""The GRPO policy loss, token by token.

This is GRPO as MiniCPM-V 4.5 trains it (arXiv 2509.18154, section 2.4.3 and appendix A): no entropy bonus, and no KL
term unless asked for. PPO's clipped ratio with separate bounds (clip-higher, DAPO, arXiv 2503.14476); no dual clip.

Legend: N = trained tokens of a micro-batch, flattened.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# exp() of a larger difference overflows float32. A token that far off is lost to the policy either way.
_MAX_LOG_RATIO = 20.0


@dataclass(frozen=True, slots=True)
class TokenLoss:
    """Per-token terms, all [N].

    Attributes:
        policy: clipped policy loss.
        kl: k3 estimate of KL(policy || reference), nats.
        ratio: importance ratio pi / pi_old, detached.
        clipped: True where the clip is active, so that the token has no policy gradient.
    """

    policy: Tensor
    kl: Tensor
    ratio: Tensor
    clipped: Tensor


def token_loss(
    logprobs_N: Tensor,
    old_logprobs_N: Tensor,
    advantages_N: Tensor,
    reference_logprobs_N: Tensor,
    *,
    clip_low: float,
    clip_high: float,
) -> TokenLoss:
    """Loss of each token: -min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A), and its k3.

    k3 = exp(d) - d - 1 with d = log pi_ref - log pi (Schulman, "Approximating KL divergence").
    """
    log_ratio_N = (logprobs_N - old_logprobs_N).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    ratio_N = log_ratio_N.exp()
    unclipped_N = ratio_N * advantages_N
    clipped_N = ratio_N.clamp(1 - clip_low, 1 + clip_high) * advantages_N
    difference_N = (reference_logprobs_N - logprobs_N).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    return TokenLoss(
        policy=-torch.minimum(unclipped_N, clipped_N),
        kl=difference_N.exp() - difference_N - 1,
        ratio=ratio_N.detach(),
        clipped=(clipped_N < unclipped_N).detach(),
    )
