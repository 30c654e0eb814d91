"""Published schemes that teach a model to choose its mode, behind the seam of `hybrid_rl.protocols.Baseline`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import chain

from hybrid_rl.algorithm.advantage import GroupAdvantage, group_advantages
from hybrid_rl.algorithm.baselines import Joint, Member, Progress, WithinMode, divided
from hybrid_rl.errors import ConfigError
from hybrid_rl.protocols import Estimate


class HybridGroups(WithinMode):
    """HGPO of Large Hybrid-Reasoning Models (arXiv 2505.14631, section 3.3).

    Of the responses of a prompt, as many are forced to think as not to. With R_m the mean reward of mode m,

        r_intra = 1 for the best of a mode, 0 for the others
        r_inter = 1 for the responses of the mode with the larger R_m, delta being added to the mode without thought
        A_t     = GRPO(r_intra) + [t is the mode token] alpha GRPO(r_inter)

    r_intra is compared within a mode, r_inter over both. Several best responses all have r_intra 1, so that a mode in
    which all are alike has no signal; equal R_m (after delta) leave r_inter without one.

    Args:
        alpha: weight of the choice of the mode.
        delta: what a thought has to be worth, in units of the reward.
    """

    paired = True
    additive = False
    needs_mode_token = True

    def __init__(self, alpha: float = 1.0, delta: float = 0.2) -> None:
        self._alpha, self._delta = _number("alpha", alpha), _number("delta", delta, least=-math.inf)

    def advantages(
        self, groups: Sequence[Sequence[Member]], estimate: Estimate, progress: Progress
    ) -> list[GroupAdvantage]:
        inter = iter(estimate(self._inter(groups)).values)
        result = []
        for group in groups:
            rewards = [member.reward for member in group]
            found = estimate(_best(rewards))
            choice = tuple(self._alpha * next(inter) for _ in group)
            result.append(
                GroupAdvantage(
                    values=found.values,
                    std=group_advantages(rewards, eps=1.0, min_std=0.0).std,
                    signal="ok" if any(choice) else found.signal,
                    mode_token_values=choice,
                )
            )
        return result

    def _inter(self, groups: Sequence[Sequence[Member]]) -> list[float | None]:
        means = []
        for group in groups:
            scored = [member.reward for member in group if member.reward is not None]
            bonus = 0.0 if any(member.thinks for member in group) else self._delta
            means.append(math.fsum(scored) / len(scored) + bonus if scored else None)
        best = max((mean for mean in means if mean is not None), default=None)
        ties = sum(mean == best for mean in means) > 1
        return [
            None if member.reward is None else float(mean == best and not ties)
            for group, mean in zip(groups, means, strict=True)
            for member in group
        ]


def _best(rewards: Sequence[float | None]) -> list[float | None]:
    highest = max((reward for reward in rewards if reward is not None), default=None)
    return [None if reward is None else float(reward == highest) for reward in rewards]


class FormatScaling(Joint):
    """Ada-GRPO of ARM (arXiv 2505.20258, section 3.2): rewards of formats that are rare in a group are raised.

        r'_i = alpha_i r_i,  alpha_i = 1 + (G / F_i - 1) (1 + cos(pi t / T)) / 2

    with F_i the responses of the group in the format of response i, G all of them, t the step of T: the factor is G / F
    at first and 1 at the end. Then GRPO.
    """

    additive = False

    def advantages(
        self, groups: Sequence[Sequence[Member]], estimate: Estimate, progress: Progress
    ) -> list[GroupAdvantage]:
        members = list(chain(*groups))
        decay = 0.5 * (1 + math.cos(math.pi * min(progress.step / progress.total, 1.0)))
        count = Counter(member.format for member in members)
        factors = [1 + decay * (len(members) / count[member.format] - 1) for member in members]
        rewards = [None if m.reward is None else m.reward * f for m, f in zip(members, factors, strict=True)]
        return divided(groups, estimate(rewards))


class DecoupledChoice(Joint):
    """Thinkless' DeGRPO (arXiv 2505.13379, section 3.2): the token that chooses the mode has a mean of its own.

        L = alpha mean(loss of the mode tokens) + mean(loss of all other tokens)

    The advantage is the same for both, over all responses of the prompt; the paper takes Dr.GRPO's
    (`train.estimator: dr_grpo`).

    Args:
        alpha: weight of the choice of the mode.
    """

    needs_mode_token = True

    def __init__(self, alpha: float = 0.001) -> None:
        self.mode_token_weight = _number("alpha", alpha)


def _number(name: str, value: object, *, least: float = 0.0) -> float:
    """An argument of a scheme; `train.baseline_args` takes whatever the file says, so it is looked at here.

    Raises:
        ConfigError: it is no finite number, or too small a one.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= least:
        return value
    wanted = "a finite number" if math.isinf(least) else f"a finite number from {least:g} up"
    raise ConfigError(f"train.baseline_args: {name} is {value!r}; give {wanted}")
