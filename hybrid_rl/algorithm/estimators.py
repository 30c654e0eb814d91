"""Estimators by name: how rewards become advantages, and what the loss makes of the importance ratio.

| name    | advantage in a group | ratio            | normaliser    | clip           | source |
| ------- | -------------------- | ---------------- | ------------- | -------------- | ------ |
| grpo    | (r - mean) / std     | token            | mode_balanced | 0.2 / 0.28     | arXiv 2402.03300 |
| dapo    | (r - mean) / std     | token            | token_mean    | 0.2 / 0.28     | arXiv 2503.14476 |
| dr_grpo | r - mean             | token            | constant      | 0.2 / 0.2      | arXiv 2503.20783 |
| rloo    | r - mean of others   | token            | mode_balanced | 0.2 / 0.2      | arXiv 2402.14740 |
| gspo    | (r - mean) / std     | response         | sequence_mean | 3e-4 / 4e-4    | arXiv 2507.18071 |
| cispo   | (r - mean) / std     | token, as weight | token_mean    | none / 4       | arXiv 2506.13585 |

`train.normalizer`, `train.clip_low` and `train.clip_high` replace what an estimator has of its own. DAPO's dynamic
sampling and its overlong penalty are settings beside these. CISPO's upper bound is that of ScaleRL and TRL, a ratio of
5; verl's bounds are clip_low = clip_high = 0.2.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hybrid_rl.algorithm.advantage import GroupAdvantage, Scale, group_advantages
from hybrid_rl.algorithm.policy_loss import (
    PolicyTerms,
    TokenBatch,
    clipped_loss,
    sequence_clipped_loss,
    weighted_logprob_loss,
)
from hybrid_rl.errors import PluginError
from hybrid_rl.plugins import load
from hybrid_rl.protocols import Estimator

PolicyLoss = Callable[[TokenBatch, float, float], PolicyTerms]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupEstimator:
    """See `hybrid_rl.protocols.Estimator`.

    Attributes:
        scale: how `group_advantages` scales deviations from the mean.
        loss: of `hybrid_rl.algorithm.policy_loss`.
        importance_correction: see `hybrid_rl.algorithm.importance`.
    """

    scale: Scale = "std"
    loss: PolicyLoss = clipped_loss
    normalizer: str = "mode_balanced"
    clip_low: float = 0.2
    clip_high: float = 0.2
    importance_correction: bool = True

    def advantages(self, rewards: Sequence[float | None], *, eps: float, min_std: float) -> GroupAdvantage:
        return group_advantages(rewards, eps=eps, min_std=min_std, scale=self.scale)

    def policy_loss(self, tokens: TokenBatch, *, clip_low: float, clip_high: float) -> PolicyTerms:
        return self.loss(tokens, clip_low, clip_high)


grpo = GroupEstimator(clip_high=0.28)
dapo = GroupEstimator(clip_high=0.28, normalizer="token_mean")
dr_grpo = GroupEstimator(scale="none", normalizer="constant")
rloo = GroupEstimator(scale="leave_one_out")
gspo = GroupEstimator(
    loss=sequence_clipped_loss,
    normalizer="sequence_mean",
    clip_low=3e-4,
    clip_high=4e-4,
    importance_correction=False,
)
cispo = GroupEstimator(loss=weighted_logprob_loss, normalizer="token_mean", clip_low=1.0, clip_high=4.0)

BUILT_IN = {name: f"{__name__}:{name}" for name in ("grpo", "dapo", "dr_grpo", "rloo", "gspo", "cispo")}
_PARTS = ("normalizer", "clip_low", "clip_high", "advantages", "policy_loss")


def load_estimator(name: str, search: Sequence[str]) -> Estimator:
    """The estimator that `train.estimator` names: a short name above, `module:name` or `file.py:name`.

    Raises:
        PluginError: it does not load, or lacks a part of the Protocol.
    """
    if name not in BUILT_IN and ":" not in name:
        near = difflib.get_close_matches(name, BUILT_IN, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"built in are {', '.join(BUILT_IN)}"
        raise PluginError(f"train.estimator: there is no '{name}'; {hint} Or write module:name or file.py:name")
    found = load(BUILT_IN.get(name, name), search)
    estimator: Estimator = found() if isinstance(found, type) else found
    missing = [part for part in _PARTS if not hasattr(estimator, part)]
    if missing:
        raise PluginError(
            f"train.estimator '{name}' has no {missing[0]}; an estimator has {', '.join(_PARTS)} "
            f"(hybrid_rl.protocols.Estimator)"
        )
    return estimator
