"""Truncated importance weights: what was sampled by an earlier policy, corrected token by token.

With mu the policy that sampled a token, pi_s the one that the step begins with and C a bound, the loss of the token is

    w L(pi / pi_s),   w = min(pi_s / mu, C)

where L is the estimator's loss, whose ratio and clip then speak of what the step itself changes (the decoupled
objective of arXiv 2110.00641, eq. 8), and w is a constant. Truncation trades a little bias for a bounded variance
(V-trace, arXiv 1802.01561, section 4.1; C = 2 is verl's default). No token is left out. Where mu is pi_s, w is 1.

The correction is that of a token, so a loss whose ratio belongs to a response (GSPO) has none.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from hybrid_rl.algorithm.policy_loss import MAX_LOG_RATIO
from hybrid_rl.errors import ConfigError
from hybrid_rl.protocols import Estimator


@dataclass(frozen=True, slots=True)
class Importance:
    """Both [N], detached.

    Attributes:
        weight_N: w of each token.
        capped_N: True where the bound is active.
    """

    weight_N: Tensor
    capped_N: Tensor


def truncated_importance(start_logprobs_N: Tensor, sampler_logprobs_N: Tensor, cap: float) -> Importance:
    """Weights of tokens from log-probabilities in nats, under pi_s and under mu."""
    difference_N = (start_logprobs_N - sampler_logprobs_N).detach()
    ratio_N = difference_N.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    return Importance(ratio_N.clamp(max=cap), ratio_N > cap)


def check_correction(name: str, estimator: Estimator) -> None:
    """Refuse an estimator whose loss of a token cannot be weighted.

    Raises:
        ConfigError: it does not say that it can.
    """
    if not getattr(estimator, "importance_correction", False):
        raise ConfigError(
            f"train.async_steps: estimator '{name}' has no importance correction for rollouts of older weights; set it "
            f"to 0, or choose an estimator with importance_correction, such as grpo"
        )
